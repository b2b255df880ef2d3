// The images of the project that is open: loaded page by page, then kept current by live messages. Each image is a
// signal of its own, so that a progress message redraws one card and not ten thousand.
import { batch, signal, type Signal } from "@preact/signals";
import * as api from "../api/endpoints";
import { Problem } from "../api/problem";
import type { Image, Job, Project, ServerMessage } from "../api/types";
import { listenProject } from "../live/socket";
import { readPlaces } from "./places";
import { applyEvent, emptyCounts, imageState, isUnfinished, mergeImage, mergeJob, withJob, type Counts } from "./jobs";

const RESYNC_LIMIT = 40;
const POSITIONS_MS = 6_000;
const POSITIONS_AT_ONCE = 8;

export class ProjectStore {
  readonly project = signal<Project | null>(null);
  readonly problem = signal<unknown>(null);
  /** Newest first. */
  readonly order = signal<readonly string[]>([]);
  readonly counts = signal<Counts>(emptyCounts());
  readonly complete = signal(false);
  readonly gone = signal(false);
  /** Grows, at most a few times a second, when any image changed: what sorts and filters depend on. */
  readonly revision = signal(0);

  private readonly images = new Map<string, Signal<Image>>();
  private readonly replaced = new Set<string>();
  private readonly deleted = new Set<string>();
  private readonly wanted = new Set<string>();
  private readonly abort = new AbortController();
  private readonly stop: () => void;
  private fetchTimer: ReturnType<typeof setTimeout> | undefined;
  private reviseTimer: ReturnType<typeof setTimeout> | undefined;
  private readonly positionTimer: ReturnType<typeof setInterval>;
  private loading = false;

  constructor(readonly id: string) {
    this.stop = listenProject(id, (message) => this.receive(message));
    this.positionTimer = setInterval(() => void this.readPositions(), POSITIONS_MS);
    void this.readProject();
    void this.load();
  }

  dispose(): void {
    this.stop();
    this.abort.abort();
    clearTimeout(this.fetchTimer);
    clearTimeout(this.reviseTimer);
    clearInterval(this.positionTimer);
  }

  image(id: string): Signal<Image> | undefined {
    return this.images.get(id);
  }

  all(): Image[] {
    const list: Image[] = [];
    for (const id of this.order.peek()) {
      const held = this.images.get(id);
      if (held) list.push(held.peek());
    }
    return list;
  }

  async readProject(): Promise<void> {
    try {
      this.project.value = await api.projects.get(this.id);
    } catch (error) {
      if (error instanceof Problem && error.status === 404) this.gone.value = true;
      else if (!this.project.value) this.problem.value = error;
    }
  }

  /** Reads every page; what is already held is joined, so this also repairs after a long absence. */
  async load(): Promise<void> {
    if (this.loading) return;
    this.loading = true;
    this.problem.value = null;
    const seen = new Set<string>();
    const before = new Set(this.images.keys());
    try {
      let after: string | null = null;
      do {
        const page: Awaited<ReturnType<typeof api.images.list>> = await api.images.list(
          this.id, after, after === null ? 100 : 500, this.abort.signal);
        for (const image of page.items) seen.add(image.id);
        this.put(page.items);
        after = page.nextAfter;
      } while (after);
      for (const id of before) if (!seen.has(id)) this.remove(id);
      this.complete.value = true;
    } catch (error) {
      if (this.abort.signal.aborted) return;
      if (error instanceof Problem && error.status === 404) this.gone.value = true;
      else this.problem.value = error;
    } finally {
      this.loading = false;
    }
  }

  put(list: readonly Image[]): void {
    batch(() => {
      const added: string[] = [];
      for (const image of list) {
        if (this.deleted.has(image.id)) continue;
        const held = this.images.get(image.id);
        if (held) held.value = mergeImage(held.peek(), image);
        else {
          this.images.set(image.id, signal(image));
          added.push(image.id);
        }
      }
      if (added.length) {
        const created = (id: string): string => this.images.get(id)?.peek().createdAt ?? "";
        const ids = [...this.order.peek(), ...added];
        this.order.value = ids.sort((a, b) => {
          const x = created(a);
          const y = created(b);
          return x === y ? (a < b ? 1 : -1) : x < y ? 1 : -1;
        });
      }
    });
    this.revise();
  }

  remove(id: string): void {
    if (!this.images.delete(id)) return;
    this.deleted.add(id);
    this.order.value = this.order.peek().filter((other) => other !== id);
    this.revise();
  }

  setJob(job: Job): void {
    const held = this.images.get(job.imageId);
    if (held) this.replaceJob(held, mergeJob(held.peek().job, job));
  }

  private replaceJob(held: Signal<Image>, job: Job | null): void {
    const image = held.peek();
    if (job === image.job) return;
    if (image.job && job && image.job.id !== job.id) this.replaced.add(image.job.id);
    held.value = withJob(image, job);
    this.revise();
  }

  private receive(message: ServerMessage): void {
    switch (message.type) {
      case "job": {
        const held = this.images.get(message.imageId);
        if (!held) {
          this.want(message.imageId);
          return;
        }
        const before = held.peek().job;
        const job = applyEvent(before, message, this.replaced, new Date().toISOString());
        this.replaceJob(held, job);
        if (before && job && before.state === "queued" && job.state !== "queued") this.moveUp(before);
        const unknownCount = job?.state === "completed" && job.objectCount === null;
        if (job && (job.id !== before?.id || unknownCount)) this.want(message.imageId);
        break;
      }
      case "snapshot":
        this.takeSnapshot(message.jobs, message.imageCount);
        break;
      case "image":
        if (message.change === "deleted") this.remove(message.imageId);
        else if (message.change === "created" && !this.images.has(message.imageId)) this.want(message.imageId);
        break;
      case "project":
        if (message.change === "deleted") this.gone.value = true;
        else void this.readProject();
        break;
      default:
        break;
    }
  }

  private takeSnapshot(jobs: readonly Job[], imageCount: number): void {
    const present = new Set<string>();
    batch(() => {
      for (const job of jobs) {
        present.add(job.imageId);
        if (this.images.has(job.imageId)) this.setJob(job);
        else this.want(job.imageId);
      }
    });
    if (!this.complete.peek()) return;
    // What was unfinished here and is not in the snapshot finished while nobody listened.
    const missed = this.all().filter((i) => isUnfinished(imageState(i)) && !present.has(i.id));
    if (missed.length > RESYNC_LIMIT || imageCount !== this.images.size) void this.load();
    else for (const image of missed) this.want(image.id);
  }

  /** Somebody ahead left the queue: those behind move up until the server's own numbers arrive. */
  private moveUp(left: Job): void {
    if (left.position === null) return;
    for (const held of this.images.values()) {
      const { job } = held.peek();
      if (job?.state === "queued" && job.position !== null && job.position > left.position)
        held.value = withJob(held.peek(), { ...job, position: job.position - 1 });
    }
  }

  /** Asks for the places of those next in line; the others move up with them. */
  private async readPositions(): Promise<void> {
    if (document.visibilityState === "hidden" || this.counts.peek().queued === 0) return;
    const waiting = this.all().flatMap(({ job }) => (job?.state === "queued" ? [job] : []));
    const found = await readPlaces(waiting, POSITIONS_AT_ONCE);
    batch(() => {
      for (const job of found) this.setJob(job);
    });
  }

  private want(id: string): void {
    if (this.deleted.has(id)) return;
    this.wanted.add(id);
    this.fetchTimer ??= setTimeout(() => void this.fetchWanted(), 300);
  }

  private async fetchWanted(): Promise<void> {
    this.fetchTimer = undefined;
    const ids = [...this.wanted];
    this.wanted.clear();
    if (ids.length > RESYNC_LIMIT) {
      await this.load();
      return;
    }
    const results = await Promise.allSettled(ids.map((id) => api.images.get(id)));
    const found: Image[] = [];
    for (const result of results) if (result.status === "fulfilled") found.push(result.value);
    this.put(found);
  }

  private revise(): void {
    this.reviseTimer ??= setTimeout(() => {
      this.reviseTimer = undefined;
      const counts = emptyCounts();
      for (const held of this.images.values()) counts[imageState(held.peek())]++;
      batch(() => {
        this.counts.value = counts;
        this.revision.value++;
      });
    }, this.revision.peek() === 0 ? 0 : 120);
  }
}

let open: ProjectStore | null = null;

/** The store of a project. The last one stays open, so that gallery and viewer share it. */
export function openProject(id: string): ProjectStore {
  if (open?.id === id && !open.gone.peek()) return open;
  open?.dispose();
  open = new ProjectStore(id);
  return open;
}

export function closeProject(): void {
  open?.dispose();
  open = null;
}
