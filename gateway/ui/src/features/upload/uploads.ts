// Uploads of this tab. They go on while a person moves between screens; three at a time; a broken connection is tried
// again with the same idempotency key, so that no image is stored twice.
import { signal } from "@preact/signals";
import { ensureToken, newKey } from "../../api/http";
import { networkProblem, parseProblem, Problem, problemWords } from "../../api/problem";
import { accessToken, sessionState } from "../../api/session";
import type { Image } from "../../api/types";
import { backoff } from "../../live/backoff";
import type { FoundFile } from "./files";

export type UploadState = "waiting" | "sending" | "done" | "failed";

export interface Upload {
  readonly id: number;
  readonly projectId: string;
  readonly file: File;
  readonly name: string;
  readonly segment: boolean;
  readonly key: string;
  state: UploadState;
  sent: number;
  tries: number;
  notBefore: number;
  reason: string;
  canRetry: boolean;
  request: XMLHttpRequest | null;
}

const PARALLEL = 3;
const MAX_TRIES = 5;
const SPEED_WINDOW_MS = 4_000;

/** Grows whenever the list changed; what the tray depends on. */
export const uploadRevision = signal(0);
export const paused = signal(false);
export const trayOpen = signal(true);

let list: Upload[] = [];
let nextId = 1;
let reviseTimer: ReturnType<typeof setTimeout> | undefined;
let samples: { at: number; bytes: number }[] = [];
let sentBytes = 0;
let onStored: (image: Image) => void = () => undefined;

export function whenStored(handler: (image: Image) => void): void {
  onStored = handler;
}

export function uploads(): readonly Upload[] {
  return list;
}

function revise(): void {
  reviseTimer ??= setTimeout(() => {
    reviseTimer = undefined;
    uploadRevision.value++;
  }, 120);
}

export interface UploadTotals {
  count: number;
  done: number;
  failed: number;
  unfinished: number;
  bytes: number;
  sent: number;
  /** Bytes per second over the last seconds. */
  speed: number;
}

export function totals(now = Date.now()): UploadTotals {
  const sum: UploadTotals = { count: list.length, done: 0, failed: 0, unfinished: 0, bytes: 0, sent: 0, speed: 0 };
  for (const upload of list) {
    if (upload.state === "failed") {
      sum.failed++;
      continue;
    }
    sum.bytes += upload.file.size;
    sum.sent += upload.state === "done" ? upload.file.size : upload.sent;
    if (upload.state === "done") sum.done++;
    else sum.unfinished++;
  }
  samples = samples.filter((sample) => now - sample.at < SPEED_WINDOW_MS);
  const first = samples[0];
  if (first && now - first.at > 250) sum.speed = (sentBytes - first.bytes) / ((now - first.at) / 1000);
  return sum;
}

export function hasUnfinished(): boolean {
  return list.some((upload) => upload.state === "waiting" || upload.state === "sending");
}

export function addFiles(projectId: string, files: readonly FoundFile[], segment: boolean): void {
  for (const { file, path } of files) {
    list.push({
      id: nextId++, projectId, file, name: path.slice(-255), segment, key: newKey(),
      state: "waiting", sent: 0, tries: 0, notBefore: 0, reason: "", canRetry: true, request: null,
    });
  }
  trayOpen.value = true;
  revise();
  pump();
}

export function setPaused(on: boolean): void {
  paused.value = on;
  if (on) {
    for (const upload of list) {
      if (upload.state !== "sending") continue;
      upload.state = "waiting";
      upload.sent = 0;
      upload.request?.abort();
      upload.request = null;
    }
  } else pump();
  revise();
}

export function retryUpload(upload: Upload): void {
  if (upload.state !== "failed") return;
  upload.state = "waiting";
  upload.tries = 0;
  upload.notBefore = 0;
  upload.reason = "";
  revise();
  pump();
}

export function retryAllFailed(): void {
  for (const upload of list) if (upload.canRetry) retryUpload(upload);
}

export function removeUpload(upload: Upload): void {
  const { request } = upload;
  upload.request = null;
  upload.state = "done";
  list = list.filter((other) => other !== upload);
  request?.abort();
  revise();
  pump();
}

export function clearFinished(): void {
  list = list.filter((upload) => upload.state === "waiting" || upload.state === "sending");
  revise();
}

function pump(): void {
  if (paused.peek()) return;
  let busy = list.filter((upload) => upload.state === "sending").length;
  const now = Date.now();
  let soonest = Infinity;
  for (const upload of list) {
    if (busy >= PARALLEL) return;
    if (upload.state !== "waiting") continue;
    if (upload.notBefore > now) {
      soonest = Math.min(soonest, upload.notBefore);
      continue;
    }
    upload.state = "sending";
    busy++;
    void start(upload);
  }
  if (soonest < Infinity) setTimeout(pump, soonest - now + 20);
}

async function start(upload: Upload): Promise<void> {
  try {
    if (!(await ensureToken())) throw new Problem(401, "unauthorized", "");
    if (upload.state !== "sending") return;
    const image = await transfer(upload);
    upload.state = "done";
    upload.sent = upload.file.size;
    onStored(image);
  } catch (error) {
    if (upload.state !== "sending") return; // paused or taken off the list
    fail(upload, error);
  } finally {
    revise();
    pump();
  }
}

/** True for what may go better a moment later. */
export function mayRecover(problem: Problem): boolean {
  return problem.status === 0 || problem.status === 429 || problem.status === 502 || problem.status === 503 ||
    problem.status === 504;
}

function fail(upload: Upload, error: unknown): void {
  const problem = error instanceof Problem ? error : networkProblem();
  upload.request = null;
  upload.sent = 0;
  upload.tries++;
  if (mayRecover(problem) && upload.tries < MAX_TRIES) {
    const wait = problem.retryAfter === null ? backoff(upload.tries, Math.random()) : problem.retryAfter * 1000;
    upload.notBefore = Date.now() + wait;
    upload.state = "waiting";
    return;
  }
  upload.state = "failed";
  upload.reason = problemWords(problem);
  upload.canRetry = mayRecover(problem) || problem.status === 401 || problem.status >= 500;
}

function transfer(upload: Upload): Promise<Image> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    upload.request = request;
    const query = `name=${encodeURIComponent(upload.name)}${upload.segment ? "&segment=true" : ""}`;
    request.open("POST", `/api/projects/${upload.projectId}/images?${query}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Idempotency-Key", upload.key);
    const token = accessToken();
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => {
      sentBytes += Math.max(0, event.loaded - upload.sent);
      upload.sent = Math.min(event.loaded, upload.file.size);
      samples.push({ at: Date.now(), bytes: sentBytes });
      revise();
    };
    request.onload = () => {
      if (request.status === 201 || request.status === 200) {
        try {
          resolve(JSON.parse(request.responseText) as Image);
        } catch {
          reject(networkProblem());
        }
      } else reject(parseProblem(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(networkProblem());
    request.onabort = () => reject(networkProblem());
    request.send(upload.file);
  });
}

export function startUploads(): void {
  window.addEventListener("beforeunload", (event) => {
    if (hasUnfinished()) event.preventDefault();
  });
  window.addEventListener("online", () => {
    for (const upload of list) upload.notBefore = 0;
    pump();
  });
  sessionState.subscribe((state) => {
    if (state !== "out") return;
    for (const upload of list) upload.request?.abort();
    list = [];
    revise();
  });
}

