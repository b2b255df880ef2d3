// Live messages: doubles, late ones and those of replaced jobs change nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Image, Job, JobEvent } from "../src/api/types";
import { nextInLine } from "../src/store/places";
import { applyEvent, mergeImage, mergeJob, withJob } from "../src/store/jobs";

const ATTEMPT = 2 ** 32;
const now = "2026-01-02T03:04:05Z";
const none: ReadonlySet<string> = new Set();

function job(change: Partial<Job> = {}): Job {
  return {
    id: "job-1", projectId: "p", imageId: "i", state: "queued", seq: 1, stage: "", progress: 0, priority: 5, model: "m",
    attempt: 0, maxAttempts: 3, position: 4, error: null, objectCount: null, createdAt: "2026-01-01T00:00:00Z",
    startedAt: null, finishedAt: null, ...change,
  };
}

function event(change: Partial<JobEvent> = {}): JobEvent {
  return {
    type: "job", projectId: "p", imageId: "i", jobId: "job-1", seq: ATTEMPT + 1, state: "active", stage: "infer", progress: 0.5,
    attempt: 1, ...change,
  };
}

function image(change: Partial<Image> = {}): Image {
  return {
    id: "i", projectId: "p", name: "a.tif", format: "tiff", byteSize: 1, width: 10, height: 10, bitDepth: 16, channels: 1, pages: 1, planes: null,
    pixelSizeUm: null, objectCount: null, job: null, createdAt: now, ...change,
  };
}

test("a newer message changes the job", () => {
  const next = applyEvent(job(), event(), none, now);
  assert.equal(next?.state, "active");
  assert.equal(next?.progress, 0.5);
  assert.equal(next?.position, null);
  assert.equal(next?.model, "m");
  assert.equal(next?.startedAt, now);
});

test("a message with the same or a smaller number changes nothing", () => {
  const held = job({ seq: ATTEMPT + 5, state: "active", progress: 0.8 });
  assert.equal(applyEvent(held, event({ seq: ATTEMPT + 5, progress: 0.1 }), none, now), held);
  assert.equal(applyEvent(held, event({ seq: ATTEMPT + 4, progress: 0.1 }), none, now), held);
});

test("a later attempt wins over any message of the one before", () => {
  const second = applyEvent(job({ seq: ATTEMPT + 900, state: "active" }), event({ seq: 2 * ATTEMPT + 1, attempt: 2, progress: 0 }), none, now);
  assert.equal(second?.attempt, 2);
  assert.equal(applyEvent(second, event({ seq: ATTEMPT + 901, state: "failed" }), none, now), second);
});

test("the first message of an unknown job makes it known, one of a replaced job does not", () => {
  assert.equal(applyEvent(null, event(), none, now)?.id, "job-1");
  const newer = job({ id: "job-2" });
  assert.equal(applyEvent(newer, event({ state: "completed" }), new Set(["job-1"]), now), newer);
});

test("a completed job carries its objects to the image and clears the error", () => {
  const failed = job({ seq: 3, state: "delayed", error: { code: "x", message: "y" } });
  const done = applyEvent(failed, event({ state: "completed", objectCount: 7 }), none, now);
  assert.equal(done?.error, null);
  assert.equal(done?.finishedAt, now);
  assert.equal(withJob(image(), done).objectCount, 7);
});

test("a re-segmentation that fails leaves the objects of the result before", () => {
  const failed = applyEvent(job(), event({ state: "failed", error: { code: "x", message: "y" } }), none, now);
  assert.equal(withJob(image({ objectCount: 12 }), failed).objectCount, 12);
});

test("a snapshot older than what is held does not take it back", () => {
  const held = job({ seq: 9, state: "active" });
  assert.equal(mergeJob(held, job({ seq: 8 })), held);
  assert.equal(mergeJob(held, job({ seq: 10, state: "completed" }))?.state, "completed");
  assert.equal(mergeJob(held, null), held);
});

test("of two jobs the later made is the image's", () => {
  const old = job({ id: "old", seq: 99, createdAt: "2026-01-01T00:00:00Z" });
  const young = job({ id: "young", seq: 1, createdAt: "2026-01-02T00:00:00Z" });
  assert.equal(mergeJob(old, young), young);
  assert.equal(mergeJob(young, old), young);
});

test("an answer that was under way does not undo a later message", () => {
  const held = image({ job: job({ seq: ATTEMPT + 9, state: "completed", objectCount: 3 }), objectCount: 3 });
  const merged = mergeImage(held, image({ job: job({ seq: 1, state: "queued" }), objectCount: null }));
  assert.equal(merged.job?.state, "completed");
  assert.equal(merged.objectCount, 3);
});

test("places are asked for those next in line", () => {
  const list = [job({ id: "c", position: 7 }), job({ id: "a", position: 2 }), job({ id: "b", position: 3 })];
  assert.deepEqual(nextInLine(list, 2).map((one) => one.id), ["a", "b"]);
  const unknown = [job({ id: "old", position: null, createdAt: "1" }), job({ id: "first", position: null, priority: 9, createdAt: "2" })];
  assert.deepEqual(nextInLine(unknown, 1).map((one) => one.id), ["first"]);
});

test("an answer without a place does not take a known place away", () => {
  const held = job({ position: 3 });
  assert.equal(mergeJob(held, job({ position: null })), held);
  assert.equal(mergeJob(held, job({ position: 1 }))?.position, 1);
});
