// Formatters, addresses, gallery rules, measurements.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Image, JobState } from "../src/api/types";
import { arrange, filterOf, gridShape, selectNext, visibleRows } from "../src/features/gallery/select";
import { scoreTable } from "../src/features/models/scores";
import { isClutter } from "../src/features/upload/files";
import { emptyColumns, fillColumns, histogram, maskOf, sortObjects, summarise, toCsv, unitOf } from "../src/features/viewer/measures";
import { scaleBar } from "../src/features/viewer/scalebar";
import { formatAgo, formatBytes, formatDuration, formatMeasure, formatPercent } from "../src/i18n/format";
import { backoff } from "../src/live/backoff";
import type { OutlineSet } from "../src/outlines/parse";
import { colourRange, colourSteps, STEPS } from "../src/outlines/colours";
import { parseRoute, pathOf } from "../src/router";

test("sizes, shares and times are written for people", () => {
  assert.equal(formatBytes(999, "en"), "999 B");
  assert.equal(formatBytes(1_500, "en"), "1.5 kB");
  assert.equal(formatBytes(2_345_678_901, "de"), "2,3 GB");
  assert.equal(formatPercent(0.999, "en"), "99%");
  assert.equal(formatPercent(1, "en"), "100%");
  assert.equal(formatPercent(-1, "en"), "0%");
  assert.equal(formatMeasure(1234.56, "en"), "1,235");
  assert.equal(formatMeasure(0.12345, "en"), "0.123");
  assert.equal(formatMeasure(0.9, "en"), "0.900");
  assert.equal(formatMeasure(Number.NaN, "en"), "–");
  assert.equal(formatDuration(42.4, "en"), "42 sec");
  assert.equal(formatDuration(3_720, "en"), "1 hr 2 min");
  const now = new Date("2026-01-02T12:00:00Z");
  assert.equal(formatAgo(new Date("2026-01-02T11:57:00Z"), now, "en"), "3 minutes ago");
  assert.equal(formatAgo(new Date("2026-01-01T12:00:00Z"), now, "en"), "yesterday");
});

test("every address leads to its view and back", () => {
  const id = "0f8fad5b-d9cb-469f-a165-70867728950e";
  for (const path of ["/projects", "/queue", "/models", "/settings", "/signin", `/projects/${id}`, `/projects/${id}/images/${id}`])
    assert.equal(pathOf(parseRoute(path)), path);
  assert.equal(parseRoute("/").name, "projects");
  assert.equal(parseRoute("/projects/../etc").name, "missing");
  assert.equal(parseRoute("/nothing").name, "missing");
});

test("waiting before a new connection grows, is bounded and differs", () => {
  assert.ok(backoff(0, 0) >= 250);
  assert.ok(backoff(3, 0.5) > backoff(1, 0.5));
  assert.ok(backoff(50, 1) <= 30_000);
  assert.notEqual(backoff(4, 0.1), backoff(4, 0.9));
});

const made = (name: string, state: JobState | null, objectCount: number | null): Image => ({
  id: name, projectId: "p", name, format: "png", byteSize: 1, width: 1, height: 1, bitDepth: 8, channels: 1, pages: 1, planes: null,
  pixelSizeUm: null, objectCount, createdAt: "",
  job: state && {
    id: "j", projectId: "p", imageId: name, state, seq: 1, stage: "", progress: 0, priority: 5, model: "", attempt: 0, maxAttempts: 3,
    position: null, error: null, objectCount, createdAt: "", startedAt: null, finishedAt: null,
  },
});

test("filters, search and order of the gallery", () => {
  const list = [made("b10.tif", "completed", 5), made("B2.tif", "failed", null), made("c.tif", "delayed", null), made("d.tif", null, null)];
  const names = (...args: Parameters<typeof arrange>): string => arrange(...args).map((i) => i.name).join(" ");
  assert.equal(names(list, "all", "", "name", "en"), "B2.tif b10.tif c.tif d.tif");
  assert.equal(names(list, "waiting", "", "newest", "en"), "c.tif");
  assert.equal(names(list, "none", "", "newest", "en"), "d.tif");
  assert.equal(names(list, "all", " b1 ", "newest", "en"), "b10.tif");
  assert.equal(names(list, "all", "", "objects", "en").split(" ")[0], "b10.tif");
  assert.equal(names(list, "all", "", "oldest", "en").split(" ")[0], "d.tif");
  assert.equal(filterOf("active"), "running");
});

test("shift selects the range, a click toggles one", () => {
  const ids = ["a", "b", "c", "d"];
  assert.deepEqual([...selectNext(new Set(["a"]), ids, "c", "a", true)], ["a", "b", "c"]);
  assert.deepEqual([...selectNext(new Set(["a", "b"]), ids, "b", "a", false)], ["a"]);
  assert.deepEqual([...selectNext(new Set(), ids, "c", "gone", true)], ["c"]);
});

test("of ten thousand images only what is in sight exists", () => {
  const shape = gridShape(1000, 10_000, 220);
  assert.equal(shape.columns, 4);
  assert.equal(shape.rows, 2500);
  const [first, last] = visibleRows(shape, 100 * shape.rowHeight, 800, 2);
  assert.equal(first, 98);
  assert.ok(last - first < 12);
  assert.deepEqual(visibleRows(gridShape(1000, 0, 220), 500, 800, 2), [0, 0]);
});

test("what systems leave in folders is not uploaded", () => {
  assert.ok(isClutter(".DS_Store") && isClutter("Thumbs.db") && !isClutter("image.tif"));
});

const set: OutlineSet = {
  count: 3, idx: Uint32Array.of(1, 2, 3), area: Float32Array.of(10, 30, 20), confidence: Float32Array.of(1, 1, 0.5),
  ringStart: new Uint32Array(4), pointStart: new Uint32Array(1), hole: new Uint8Array(0), points: new Float32Array(0),
  boxes: new Float32Array(12),
};
const feature = (idx: number, measurements: Record<string, number>) =>
  ({ type: "Feature", id: idx, geometry: { type: "Polygon", coordinates: [] }, properties: { idx, confidence: 1, measurements } }) as const;

test("measurements find their outline by idx, sort and filter", () => {
  const columns = emptyColumns(set);
  fillColumns(columns, set, [feature(3, { circularity: 0.9, perimeter: 4 }), feature(1, { circularity: 0.2 }), feature(77, { circularity: 1 })]);
  assert.deepEqual([...columns.get("circularity")!].map((v) => (Number.isNaN(v) ? null : v)), [0.2, null, 0.9]);
  assert.deepEqual(sortObjects(columns, set, "circularity", true, null), [2, 0, 1]);
  assert.deepEqual(sortObjects(columns, set, "area", false, null), [0, 2, 1]);
  const mask = maskOf(columns, 3, { key: "area", min: 15, max: null });
  assert.deepEqual([...mask!], [0, 1, 1]);
  assert.deepEqual(sortObjects(columns, set, "idx", false, mask), [1, 2]);
  assert.equal(maskOf(columns, 3, { key: "area", min: null, max: null }), null);
});

test("summary and histogram count each object once", () => {
  const values = [1, 2, 3, 4, Number.NaN];
  const summary = summarise(values, null)!;
  assert.deepEqual([summary.n, summary.mean, summary.median, summary.min, summary.max], [4, 2.5, 2.5, 1, 4]);
  assert.ok(Math.abs(summary.deviation - 1.2909944) < 1e-6);
  const bins = histogram(values, null, summary, 3);
  assert.equal(bins.reduce((a, b) => a + b, 0), 4);
  assert.equal(summarise([Number.NaN], null), null);
});

test("lengths and areas are in µm when the pixel size is known", () => {
  assert.deepEqual(unitOf("area", 0.5), { factor: 0.25, unit: "µm²" });
  assert.deepEqual(unitOf("perimeter", 0.5), { factor: 0.5, unit: "µm" });
  assert.deepEqual(unitOf("area", null), { factor: 1, unit: "px²" });
  assert.deepEqual(unitOf("circularity", 0.5), { factor: 1, unit: "" });
});

test("a table for a spreadsheet: one line an object, nothing runs as a formula", () => {
  const columns = emptyColumns(set);
  fillColumns(columns, set, [feature(1, { perimeter: 12.5 })]);
  const lines = toCsv('=cmd"x",1.tif', set, columns, 2).trimEnd().split("\r\n");
  assert.equal(lines.length, 4);
  const head = lines[0]!.split(",");
  assert.ok(head.includes("area_px2") && head.includes("area_um2") && head.includes("perimeter_um"));
  assert.ok(lines[1]!.startsWith(`"'=cmd""x"",1.tif",1,1,10,`));
  const tail = lines[1]!.slice(lines[1]!.indexOf('",') + 2);
  assert.ok(tail.split(",").includes("12.5") && tail.split(",").includes("25") && tail.split(",").includes("40"));
});

test("the scale bar is a round length that fits", () => {
  for (const perUnit of [0.013, 0.7, 1, 3.3, 250]) {
    const bar = scaleBar(perUnit, 130);
    assert.ok(bar.pixels <= 130 && bar.pixels > 130 / 2.6, String(bar.pixels));
    assert.match(bar.units.toExponential(0), /^[125]e/);
  }
});

test("colours cover the middle of the values", () => {
  const values = Array.from({ length: 1000 }, (_, i) => (i === 999 ? 1e9 : i));
  const range = colourRange(values);
  assert.ok(range[1] < 1000);
  const steps = colourSteps(values, range);
  assert.equal(steps[0], 0);
  assert.equal(steps[999], STEPS - 1);
  assert.deepEqual(colourRange([5, 5, 5]), [5, 6]);
});

test("the score sheet of a model becomes a table", () => {
  const table = scoreTable({ nuclei: { IoU: 0.9, AP50: 0.8, images: 4, found: 1, note: "x", baseline: { AP50: 0.5 } }, seconds: 12, text: "y" });
  assert.deepEqual(table.metrics, ["IoU", "AP50"]);
  assert.equal(table.rows.length, 1);
  assert.equal(table.rows[0]?.images, 4);
  assert.deepEqual(table.rows[0]?.values.get("AP50"), { value: 0.8, baseline: 0.5 });
  assert.deepEqual(table.rows[0]?.values.get("IoU"), { value: 0.9, baseline: null });
  assert.deepEqual(scoreTable({ AP50: 0.7 }).rows.map((row) => row.set), [""]);
  assert.deepEqual(scoreTable(undefined), { metrics: [], rows: [] });
});
