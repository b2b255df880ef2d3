// What can be chosen for a run: what all the images have, and what the model takes.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Image, Model } from "../src/api/types";
import { fitOptions, optionWords, parseMix, reachOf } from "../src/features/gallery/options";

const image = (pages: number, channels: number, planes: Image["planes"]): Image => ({
  id: "i", projectId: "p", name: "a.tif", format: "tiff", byteSize: 1, width: 1, height: 1, bitDepth: 8, channels, pages, planes,
  pixelSizeUm: null, objectCount: null, createdAt: "", job: null,
});

test("pages are offered for a plain stack, slices and times where the file says what its pages are", () => {
  const plain = image(5, 1, { channels: 1, slices: 5, times: 1 });
  assert.deepEqual(reachOf([plain]), { pages: 5, channels: 1, slices: 1, times: 1 });
  const told = image(24, 1, { channels: 2, slices: 4, times: 3 });
  assert.deepEqual(reachOf([told]), { pages: 1, channels: 2, slices: 4, times: 3 });
  assert.deepEqual(reachOf([image(2, 3, null)]), { pages: 2, channels: 3, slices: 1, times: 1 });
});

test("of many images only what all of them have", () => {
  const reach = reachOf([image(5, 3, { channels: 3, slices: 5, times: 1 }), image(2, 1, { channels: 1, slices: 2, times: 1 })]);
  assert.deepEqual(reach, { pages: 2, channels: 1, slices: 1, times: 1 });
  assert.deepEqual(reachOf([]), { pages: 1, channels: 1, slices: 1, times: 1 });
});

test("weights are numbers, at most one for each channel, not all 0", () => {
  assert.deepEqual(parseMix("1, 0.5", 3), [1, 0.5]);
  assert.deepEqual(parseMix("-1;2 3", 3), [-1, 2, 3]);
  for (const wrong of ["", "0 0", "1 2", "a", "1,NaN", "1 2 3"]) assert.equal(parseMix(wrong, wrong === "1 2" ? 1 : 2), null, wrong);
});

test("a choice that the model does not take is dropped, the rest stays", () => {
  const model: Model = {
    name: "m", version: "1", title: "", description: "", threshold: 0.5,
    options: { minArea: 1, maxHoleArea: 2, augment: "none", augments: ["none", "flips"] },
  };
  assert.deepEqual(fitOptions({ minArea: 3, augment: "rotations" }, model), { minArea: 3 });
  assert.deepEqual(fitOptions({ augment: "flips" }, model), { augment: "flips" });
});

test("a result's settings in words leave out what says nothing", () => {
  const words = optionWords({ minArea: 20, maxArea: 0, maxHoleArea: 10, augment: "none", page: 2, mix: [1, 0.5] });
  assert.deepEqual(words.map(({ value }) => value), ["20", "10", "2", "1, 0.5"]);
});
