// The measurements of proto/polygons.md: which there are, their units, and columns of them.
import type { PolygonFeature } from "../../api/types";
import type { OutlineSet } from "../../outlines/parse";

export type Dimension = "none" | "length" | "area" | "angle" | "grey" | "position" | "count";

export const measures = {
  area: "area", areaFilled: "area", perimeter: "length", perimeterWithHoles: "length", equivalentDiameter: "length",
  circularity: "none", feretMax: "length", feretMin: "length", feretOrthogonal: "length", feretAspectRatio: "none",
  majorAxis: "length", minorAxis: "length", orientation: "angle", bboxX: "position", bboxY: "position",
  bboxWidth: "length", bboxHeight: "length", extent: "none", compactness: "none", convexity: "none", solidity: "none",
  sphericity: "none", centroidX: "position", centroidY: "position", holes: "count", meanIntensity: "grey",
  integratedIntensity: "grey",
} as const satisfies Record<string, Dimension>;

export type MeasureKey = keyof typeof measures;
export type ColumnKey = MeasureKey | "confidence";

export const measureKeys = Object.keys(measures) as MeasureKey[];
export const mainMeasures: readonly MeasureKey[] = [
  "area", "equivalentDiameter", "circularity", "feretMax", "solidity", "meanIntensity",
];

export function dimensionOf(key: ColumnKey): Dimension {
  return key === "confidence" ? "none" : measures[key];
}

/** Factor and unit by which a value in pixels is shown. */
export function unitOf(key: ColumnKey, pixelSizeUm: number | null): { factor: number; unit: string } {
  const dimension = dimensionOf(key);
  const known = pixelSizeUm !== null && pixelSizeUm > 0;
  switch (dimension) {
    case "length":
    case "position": return known ? { factor: pixelSizeUm, unit: "µm" } : { factor: 1, unit: "px" };
    case "area": return known ? { factor: pixelSizeUm * pixelSizeUm, unit: "µm²" } : { factor: 1, unit: "px²" };
    case "angle": return { factor: 1, unit: "°" };
    default: return { factor: 1, unit: "" };
  }
}

export type Columns = ReadonlyMap<ColumnKey, Float64Array>;

export function emptyColumns(set: OutlineSet): Map<ColumnKey, Float64Array> {
  const columns = new Map<ColumnKey, Float64Array>();
  columns.set("area", Float64Array.from(set.area));
  columns.set("confidence", Float64Array.from(set.confidence));
  return columns;
}

/** Puts measured features where the outline with the same idx is. */
export function fillColumns(columns: Map<ColumnKey, Float64Array>, set: OutlineSet, features: readonly PolygonFeature[]): void {
  const place = new Map<number, number>();
  for (let o = 0; o < set.count; o++) place.set(set.idx[o]!, o);
  for (const { properties } of features) {
    const at = place.get(properties.idx);
    if (at === undefined || !properties.measurements) continue;
    for (const key of measureKeys) {
      const value = properties.measurements[key];
      if (typeof value !== "number") continue;
      let column = columns.get(key);
      if (!column) {
        column = new Float64Array(set.count).fill(Number.NaN);
        columns.set(key, column);
      }
      column[at] = value;
    }
  }
}

export interface RangeFilter {
  key: ColumnKey;
  min: number | null;
  max: number | null;
}

export function maskOf(columns: Columns, count: number, filter: RangeFilter | null): Uint8Array | null {
  const column = filter ? columns.get(filter.key) : undefined;
  if (!filter || !column || (filter.min === null && filter.max === null)) return null;
  const mask = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const value = column[i]!;
    if ((filter.min === null || value >= filter.min) && (filter.max === null || value <= filter.max)) mask[i] = 1;
  }
  return mask;
}

/** Objects in the order of a column; those without a value come last. */
export function sortObjects(
  columns: Columns, set: OutlineSet, key: ColumnKey | "idx", descending: boolean, mask: Uint8Array | null,
): number[] {
  const list: number[] = [];
  for (let o = 0; o < set.count; o++) if (!mask || mask[o]) list.push(o);
  const values: ArrayLike<number> | undefined = key === "idx" ? set.idx : columns.get(key);
  if (!values) return list;
  const sign = descending ? -1 : 1;
  return list.sort((a, b) => {
    const x = values[a]!;
    const y = values[b]!;
    if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
    return x === y ? set.idx[a]! - set.idx[b]! : (x - y) * sign;
  });
}

export interface Summary {
  n: number;
  mean: number;
  median: number;
  deviation: number;
  min: number;
  max: number;
}

export function summarise(values: ArrayLike<number>, mask: Uint8Array | null): Summary | null {
  const list: number[] = [];
  for (let i = 0; i < values.length; i++) if ((!mask || mask[i]) && Number.isFinite(values[i])) list.push(values[i]!);
  if (list.length === 0) return null;
  list.sort((a, b) => a - b);
  const n = list.length;
  const mean = list.reduce((sum, value) => sum + value, 0) / n;
  const spread = list.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const middle = n % 2 ? list[(n - 1) / 2]! : (list[n / 2 - 1]! + list[n / 2]!) / 2;
  return { n, mean, median: middle, deviation: n > 1 ? Math.sqrt(spread / (n - 1)) : 0, min: list[0]!, max: list[n - 1]! };
}

export function histogram(values: ArrayLike<number>, mask: Uint8Array | null, summary: Summary, bins: number): Uint32Array {
  const counts = new Uint32Array(bins);
  const width = summary.max - summary.min || 1;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if ((mask && !mask[i]) || !Number.isFinite(value)) continue;
    const bin = Math.min(bins - 1, Math.floor(((value - summary.min) / width) * bins));
    counts[bin] = counts[bin]! + 1;
  }
  return counts;
}

function csvField(text: string): string {
  // A leading = + - @ would be run as a formula by spreadsheets.
  const safe = /^[=+@\t\r]/.test(text) || /^-\D/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** One line an object: everything in pixels, and lengths and areas in µm too where the pixel size is known. */
export function toCsv(name: string, set: OutlineSet, columns: Columns, pixelSizeUm: number | null): string {
  const head = ["image", "object", "confidence"];
  const metric = pixelSizeUm !== null && pixelSizeUm > 0;
  for (const key of measureKeys) {
    const dimension = measures[key];
    head.push(dimension === "area" ? `${key}_px2` : dimension === "length" || dimension === "position" ? `${key}_px` : key);
  }
  const metricKeys = metric ? measureKeys.filter((key) => ["area", "length", "position"].includes(measures[key])) : [];
  for (const key of metricKeys) head.push(measures[key] === "area" ? `${key}_um2` : `${key}_um`);
  const number = (value: number | undefined): string =>
    value === undefined || !Number.isFinite(value) ? "" : String(Number(value.toPrecision(9)));
  const lines = [head.join(",")];
  for (let o = 0; o < set.count; o++) {
    const line = [csvField(name), String(set.idx[o]), number(set.confidence[o])];
    for (const key of measureKeys) line.push(number(columns.get(key)?.[o]));
    for (const key of metricKeys) {
      const value = columns.get(key)?.[o];
      line.push(number(value === undefined ? undefined : value * unitOf(key, pixelSizeUm).factor));
    }
    lines.push(line.join(","));
  }
  return lines.join("\r\n") + "\r\n";
}
