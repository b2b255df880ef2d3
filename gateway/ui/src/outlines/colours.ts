// Colours of the outlines. Blue and amber stay apart for every kind of colour blindness, and holes are dashed as well.
// The scale for measurements rises evenly in lightness, so that it also reads in grey.

export const OUTER = "#4cc9f0";
export const HOLE = "#ffb000";
export const SELECTED = "#ffffff";
export const CASING = "rgba(2,10,16,0.7)";
export const STEPS = 24;

/** Corner colours of a dark-violet to yellow scale, interpolated in RGB. */
const corners: readonly (readonly [number, number, number])[] = [
  [78, 52, 138], [58, 95, 160], [38, 138, 150], [70, 178, 120], [160, 207, 72], [250, 226, 60],
];

export function scaleColour(fraction: number): string {
  const at = Math.min(1, Math.max(0, fraction)) * (corners.length - 1);
  const low = Math.min(corners.length - 2, Math.floor(at));
  const mix = at - low;
  const a = corners[low]!;
  const b = corners[low + 1]!;
  const channel = (i: 0 | 1 | 2): number => Math.round(a[i] + (b[i] - a[i]) * mix);
  return `rgb(${channel(0)},${channel(1)},${channel(2)})`;
}

export const scaleColours: readonly string[] = Array.from({ length: STEPS }, (_, i) => scaleColour(i / (STEPS - 1)));

/** The range that colours cover: the middle 96 %, so that one odd object does not wash out the others. */
export function colourRange(values: ArrayLike<number>): [number, number] {
  const sorted = Float64Array.from(values).filter((value) => Number.isFinite(value)).sort();
  if (sorted.length === 0) return [0, 1];
  const low = sorted[Math.floor((sorted.length - 1) * 0.02)]!;
  const high = sorted[Math.ceil((sorted.length - 1) * 0.98)]!;
  return high > low ? [low, high] : [low, low + 1];
}

export function colourSteps(values: ArrayLike<number>, range: readonly [number, number]): Uint8Array {
  const steps = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const fraction = ((values[i] as number) - range[0]) / (range[1] - range[0]);
    steps[i] = Number.isFinite(fraction) ? Math.min(STEPS - 1, Math.max(0, Math.floor(fraction * STEPS))) : 0;
  }
  return steps;
}
