// A preview grows while its job runs, begins anew with another attempt, and is forgotten when the job ends.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Image, Job, JobState } from "../src/api/types";
import { Preview } from "../src/features/viewer/preview";

/** One triangle with this number. */
function stream(...indices: number[]): ArrayBuffer {
  const size = 4 + 2 + 4 + 3 * 8;
  const out = new DataView(new ArrayBuffer(8 + indices.length * (16 + size)));
  out.setUint32(0, 0x31504753, true);
  out.setUint32(4, indices.length, true);
  indices.forEach((idx, i) => {
    let at = 8 + i * (16 + size);
    out.setUint32(at, idx, true);
    out.setUint32(at + 12, size, true);
    at += 16;
    out.setUint8(at, 1);
    out.setUint16(at + 2, 1, true);
    out.setUint16(at + 4, 1, true);
    out.setUint32(at + 6, 3, true);
    [0, 0, 100, 0, 100, 100].forEach((v, k) => out.setInt32(at + 10 + 4 * k, v, true));
  });
  return out.buffer;
}

const image = (state: JobState, id = "j", objectCount: number | null = null): Image => ({
  id: "i", projectId: "p", name: "a", format: "tiff", byteSize: 1, width: 9, height: 9, bitDepth: 8, channels: 1, pages: 1, planes: null,
  pixelSizeUm: null, objectCount, createdAt: "", job: { id, state } as Job,
});

async function until(check: () => boolean): Promise<void> {
  const end = Date.now() + 30_000;
  while (!check()) {
    assert.ok(Date.now() < end, "it did not happen");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test("parts are joined, another attempt begins anew, the end forgets", async () => {
  const asked: string[] = [];
  let answer = { of: "a", next: 1 as number | null, data: stream(1, 2) };
  const preview = new Preview(async (job, of, after) => {
    asked.push(`${job} ${of} ${after}`);
    const given = answer;
    answer = { of: given.of, next: null, data: stream() };
    return given;
  }, 1);
  const shown = (): number[] => [...(preview.outlines.value?.idx ?? [])];
  preview.follow(image("active"));
  preview.follow(image("active"));
  await until(() => shown().length === 2);
  answer = { of: "a", next: 2, data: stream(3) };
  await until(() => shown().length === 3);
  assert.deepEqual(shown(), [1, 2, 3]);
  assert.ok(asked.includes("j null 0") && asked.includes("j a 1"));
  answer = { of: "b", next: 1, data: stream(7) };
  await until(() => shown()[0] === 7);
  assert.deepEqual(shown(), [7]);
  preview.follow(image("delayed"));
  assert.equal(preview.outlines.value, null);
  preview.follow(image("active"));
  answer = { of: "c", next: 1, data: stream(8) };
  await until(() => shown()[0] === 8);
  preview.follow(image("completed", "j", 1));
  assert.deepEqual(shown(), [8]); // until the result has been read
  preview.dispose();
  assert.equal(preview.outlines.value, null);
  const before = asked.length;
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(asked.length, before);
});

test("an image that has a result keeps it", async () => {
  let asked = 0;
  const preview = new Preview(async () => {
    asked++;
    return { of: "a", next: 1, data: stream(1) };
  }, 1);
  preview.follow(image("active", "j", 5));
  preview.follow(image("queued", "k"));
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(asked, 0);
});
