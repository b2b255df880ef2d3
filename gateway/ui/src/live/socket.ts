// The one WebSocket of this tab (proto/events.md). It subscribes again after each reconnect, waits longer after each
// failure, with jitter, and tells the shell how it stands.
import { signal } from "@preact/signals";
import { ensureToken } from "../api/http";
import { refreshSession, sessionState } from "../api/session";
import type { QueueStatus, ServerMessage } from "../api/types";
import { backoff } from "./backoff";

export type ConnectionState = "connecting" | "live" | "reconnecting" | "offline";
export const connection = signal<ConnectionState>("connecting");

type ProjectListener = (message: ServerMessage) => void;
type QueueListener = (status: QueueStatus) => void;

const PING_MS = 20_000;
const SILENCE_MS = 45_000;
const OFFLINE_AFTER = 4;

const projectListeners = new Map<string, Set<ProjectListener>>();
const queueListeners = new Set<QueueListener>();
let socket: WebSocket | null = null;
let failures = 0;
let wanted = false;
let retryTimer: ReturnType<typeof setTimeout> | undefined;
let pingTimer: ReturnType<typeof setInterval> | undefined;
let heardAt = 0;

function send(message: object): void {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function receive(text: string): void {
  heardAt = Date.now();
  let message: ServerMessage;
  try {
    message = JSON.parse(text) as ServerMessage;
  } catch {
    return;
  }
  switch (message.type) {
    case "auth.expired":
      void refreshSession().catch(() => undefined);
      break;
    case "queue":
      for (const listener of queueListeners) listener(message);
      break;
    case "snapshot":
    case "job":
    case "image":
    case "project":
      for (const listener of projectListeners.get(message.projectId) ?? []) listener(message);
      break;
    default:
      break;
  }
}

function drop(): void {
  clearInterval(pingTimer);
  if (!socket) return;
  socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
  socket.close();
  socket = null;
}

function retryLater(): void {
  drop();
  if (!wanted) return;
  failures++;
  connection.value = !navigator.onLine || failures >= OFFLINE_AFTER ? "offline" : "reconnecting";
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => void open(), backoff(failures - 1, Math.random()));
}

function opened(): void {
  failures = 0;
  heardAt = Date.now();
  connection.value = "live";
  for (const projectId of projectListeners.keys()) send({ type: "subscribe", projectId });
  if (queueListeners.size) send({ type: "subscribe", queue: true });
  pingTimer = setInterval(() => {
    if (Date.now() - heardAt > SILENCE_MS) retryLater();
    else send({ type: "ping", t: Date.now() });
  }, PING_MS);
}

async function open(): Promise<void> {
  clearTimeout(retryTimer);
  if (!wanted || socket) return;
  try {
    if (!(await ensureToken())) return;
  } catch {
    retryLater();
    return;
  }
  if (!wanted || socket) return;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const opening = new WebSocket(`${scheme}://${location.host}/api/ws`);
  socket = opening;
  opening.onopen = opened;
  opening.onmessage = (event: MessageEvent) => {
    if (typeof event.data === "string") receive(event.data);
  };
  opening.onclose = retryLater;
  opening.onerror = () => undefined;
}

/** Connects while somebody is signed in. */
export function startLive(): void {
  sessionState.subscribe((state) => {
    wanted = state === "in";
    if (wanted) void open();
    else {
      clearTimeout(retryTimer);
      drop();
      failures = 0;
      connection.value = "connecting";
    }
  });
  window.addEventListener("online", () => {
    failures = 0;
    if (!wanted) return;
    // The socket may have outlived a short gap, and what was sent meanwhile may be lost: a fresh one gets a snapshot.
    drop();
    void open();
  });
  window.addEventListener("offline", () => {
    if (!wanted) return;
    drop();
    connection.value = "offline";
  });
}

export function listenProject(projectId: string, listener: ProjectListener): () => void {
  let listeners = projectListeners.get(projectId);
  if (!listeners) {
    listeners = new Set();
    projectListeners.set(projectId, listeners);
    send({ type: "subscribe", projectId });
  }
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && projectListeners.get(projectId) === listeners) {
      projectListeners.delete(projectId);
      send({ type: "unsubscribe", projectId });
    }
  };
}

export function listenQueue(listener: QueueListener): () => void {
  if (queueListeners.size === 0) send({ type: "subscribe", queue: true });
  queueListeners.add(listener);
  return () => {
    queueListeners.delete(listener);
    if (queueListeners.size === 0) send({ type: "unsubscribe", queue: true });
  };
}
