// The binary form of proto/polygons.md.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DetailLevels } from "../src/outlines/detail";
import { containsPoint, objectAt, OutlineError, parseOutlines } from "../src/outlines/parse";

type Ring = readonly (readonly [number, number])[];

/** Writes the stream byte by byte, as the format says. */
function encode(objects: readonly { idx: number; area: number; polygons: readonly (readonly Ring[])[] }[]): ArrayBuffer {
  const bytes: number[] = [];
  const u8 = (v: number): void => void bytes.push(v & 255);
  const u16 = (v: number): void => { u8(v); u8(v >> 8); };
  const u32 = (v: number): void => { u16(v & 0xffff); u16(v >>> 16); };
  const f32 = (v: number): void => void bytes.push(...new Uint8Array(new Float32Array([v]).buffer));
  for (const c of "SGP1") u8(c.charCodeAt(0));
  u32(objects.length);
  for (const { idx, area, polygons } of objects) {
    u32(idx);
    f32(area);
    f32(0.75);
    const lengthAt = bytes.length;
    u32(0);
    u8(1);
    u8(0);
    u16(polygons.length);
    for (const rings of polygons) {
      u16(rings.length);
      for (const ring of rings) {
        u32(ring.length);
        for (const [x, y] of ring) {
          u32(Math.round(x * 100));
          u32(Math.round(y * 100));
        }
      }
    }
    const length = bytes.length - lengthAt - 4;
    for (let i = 0; i < 4; i++) bytes[lengthAt + i] = (length >>> (8 * i)) & 255;
  }
  return new Uint8Array(bytes).buffer;
}

const square = (x: number, y: number, size: number): Ring => [[x, y], [x + size, y], [x + size, y + size], [x, y + size]];

test("objects, rings, holes and coordinates arrive as written", () => {
  const set = parseOutlines([encode([
    { idx: 3, area: 84, polygons: [[square(0, 0, 10), square(3, 3, 4)]] },
    { idx: 9, area: 2, polygons: [[square(20, 20, 1)], [square(-1.25, 30, 1)]] },
  ])]);
  assert.equal(set.count, 2);
  assert.deepEqual([...set.idx], [3, 9]);
  assert.deepEqual([...set.ringStart], [0, 2, 4]);
  assert.deepEqual([...set.hole], [0, 1, 0, 0]);
  assert.deepEqual([...set.pointStart], [0, 4, 8, 12, 16]);
  assert.deepEqual([...set.points.slice(0, 4)], [0, 0, 10, 0]);
  assert.deepEqual([...set.boxes.slice(4)], [-1.25, 20, 21, 31]);
  assert.equal(set.confidence[0], 0.75);
});

test("pages are joined in order", () => {
  const page = (idx: number): ArrayBuffer => encode([{ idx, area: 1, polygons: [[square(idx, 0, 1)]] }]);
  const set = parseOutlines([page(1), page(2), encode([])]);
  assert.deepEqual([...set.idx], [1, 2]);
  assert.deepEqual([...set.boxes.slice(4, 8)], [2, 0, 3, 1]);
});

test("what is cut short, foreign or lies about its length is refused", () => {
  const good = encode([{ idx: 1, area: 1, polygons: [[square(0, 0, 1)]] }]);
  for (let length = 0; length < good.byteLength; length++)
    assert.throws(() => parseOutlines([good.slice(0, length)]), OutlineError, `${length} bytes`);
  const foreign = new Uint8Array(good.slice(0));
  foreign[0] = 0x47;
  assert.throws(() => parseOutlines([foreign.buffer]), OutlineError);
  const version = new Uint8Array(good.slice(0));
  version[24] = 2;
  assert.throws(() => parseOutlines([version.buffer]), OutlineError);
  const long = new Uint8Array(good.slice(0));
  long[20] = long[20]! + 1;
  assert.throws(() => parseOutlines([long.buffer]), OutlineError);
  const many = new Uint8Array(good.slice(0));
  many[7] = 255;
  assert.throws(() => parseOutlines([many.buffer]), OutlineError);
});

test("a point in a hole is outside, and the smallest object is found", () => {
  const set = parseOutlines([encode([
    { idx: 1, area: 84, polygons: [[square(0, 0, 10), square(3, 3, 4)]] },
    { idx: 2, area: 4, polygons: [[square(0, 0, 2)]] },
  ])]);
  assert.equal(containsPoint(set, 0, 1, 1), true);
  assert.equal(containsPoint(set, 0, 5, 5), false);
  assert.equal(containsPoint(set, 0, 11, 5), false);
  assert.equal(objectAt(set, 1, 1, () => true), 1);
  assert.equal(objectAt(set, 1, 1, (object) => object !== 1), 0);
  assert.equal(objectAt(set, 5, 5, () => true), -1);
});

test("coarser levels stay within their tolerance and never lose a ring", () => {
  const circle = (cx: number, r: number): Ring =>
    Array.from({ length: 400 }, (_, i) => [cx + r * Math.cos(i / 63.66), 50 + r * Math.sin(i / 63.66)] as const);
  const objects = Array.from({ length: 60 }, (_, i) => ({ idx: i, area: 1, polygons: [[circle(i * 50, i === 0 ? 0.5 : 20)]] }));
  const set = parseOutlines([encode(objects)]);
  const levels = new DetailLevels(set);
  assert.equal(levels.at(1).tolerance, 0);
  const coarse = levels.at(0.1);
  assert.equal(coarse.tolerance, 8);
  assert.ok(coarse.points.length < set.points.length / 10);
  for (let r = 0; r < set.hole.length; r++) {
    const from = coarse.pointStart[r]!;
    const to = coarse.pointStart[r + 1]!;
    assert.ok(to - from >= 3);
    for (let i = set.pointStart[r]!; i < set.pointStart[r + 1]!; i++) {
      let nearest = Infinity;
      for (let k = from; k < to; k++)
        nearest = Math.min(nearest, Math.hypot(coarse.points[k * 2]! - set.points[i * 2]!, coarse.points[k * 2 + 1]! - set.points[i * 2 + 1]!));
      assert.ok(nearest <= coarse.tolerance, `ring ${r}: ${nearest}`);
    }
  }
});
