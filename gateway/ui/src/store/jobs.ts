// What a live message does to what is shown. Pure functions: messages may come twice, late or out of order, and only
// a greater sequence number of the same job changes anything.
import type { Image, ImageState, Job, JobEvent } from "../api/types";

export function imageState(image: Image): ImageState {
  return image.job?.state ?? "none";
}

export function isUnfinished(state: ImageState): boolean {
  return state === "queued" || state === "active" || state === "delayed";
}

function jobFromEvent(event: JobEvent, now: string): Job {
  return {
    id: event.jobId,
    projectId: event.projectId,
    imageId: event.imageId,
    state: event.state,
    seq: event.seq,
    stage: event.stage ?? "",
    progress: event.progress ?? 0,
    priority: 5,
    model: "",
    attempt: event.attempt ?? 0,
    maxAttempts: 3,
    position: event.position ?? null,
    error: event.error ?? null,
    objectCount: event.objectCount ?? null,
    createdAt: now,
    startedAt: null,
    finishedAt: null,
  };
}

/** Applies an event to the job held for an image. The same object comes back when the event is old. */
export function applyEvent(held: Job | null, event: JobEvent, replaced: ReadonlySet<string>, now: string): Job | null {
  if (held === null || held.id !== event.jobId) return replaced.has(event.jobId) ? held : jobFromEvent(event, now);
  if (event.seq <= held.seq) return held;
  const finished = !isUnfinished(event.state);
  return {
    ...held,
    seq: event.seq,
    state: event.state,
    stage: event.stage ?? held.stage,
    progress: event.progress ?? held.progress,
    attempt: event.attempt ?? held.attempt,
    position: event.position ?? (event.state === "queued" ? held.position : null),
    objectCount: event.objectCount ?? held.objectCount,
    error: event.error ?? (event.state === "failed" || event.state === "delayed" ? held.error : null),
    startedAt: event.state === "active" && held.state !== "active" ? now : held.startedAt,
    finishedAt: finished ? now : null,
  };
}

/** Joins a whole job, from a snapshot or an answer, with the one held: the later one wins. */
export function mergeJob(held: Job | null, incoming: Job | null): Job | null {
  if (!incoming) return held;
  if (!held) return incoming;
  if (held.id === incoming.id) {
    if (incoming.seq > held.seq) return incoming;
    if (incoming.seq < held.seq) return held;
    // As new as what is held: only the numbers that no event carries can differ.
    if (held.model && (incoming.position === held.position || incoming.position === null)) return held;
    const position = incoming.position ?? (incoming.state === "queued" ? held.position : null);
    return { ...incoming, position, progress: Math.max(incoming.progress, held.progress) };
  }
  return incoming.createdAt >= held.createdAt ? incoming : held;
}

/** The image with another job; its object count follows a completed job. */
export function withJob(image: Image, job: Job | null): Image {
  if (job === image.job) return image;
  const objectCount = job?.state === "completed" && job.objectCount !== null ? job.objectCount : image.objectCount;
  return { ...image, job, objectCount };
}

/** Joins an image read anew with the one held, so that an answer under way does not undo a later event. */
export function mergeImage(held: Image | undefined, incoming: Image): Image {
  if (!held) return incoming;
  const job = mergeJob(held.job, incoming.job);
  if (job === incoming.job) return incoming;
  return withJob({ ...incoming, objectCount: held.objectCount ?? incoming.objectCount }, job);
}

export type Counts = Record<ImageState, number>;

export function emptyCounts(): Counts {
  return { none: 0, queued: 0, active: 0, delayed: 0, completed: 0, failed: 0, cancelled: 0 };
}
