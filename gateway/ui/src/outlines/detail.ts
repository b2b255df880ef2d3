// Coarser copies of the outlines: a point closer than the tolerance to the one before is left out, so that the number
// of points drawn follows the number of pixels on the screen and not the size of the image.
import type { OutlineSet } from "./parse";

export interface DetailLevel {
  readonly tolerance: number;
  readonly pointStart: Uint32Array;
  readonly points: Float32Array;
}

function thin(set: OutlineSet, tolerance: number): DetailLevel {
  const rings = set.hole.length;
  const pointStart = new Uint32Array(rings + 1);
  const points = new Float32Array(set.points.length);
  const limit = tolerance * tolerance;
  let out = 0;
  for (let r = 0; r < rings; r++) {
    const start = set.pointStart[r]!;
    const end = set.pointStart[r + 1]!;
    pointStart[r] = out;
    const step = Math.max(1, Math.floor((end - start) / 3));
    let lastX = Infinity;
    let lastY = Infinity;
    let kept = 0;
    for (let i = start; i < end; i++) {
      const x = set.points[i * 2]!;
      const y = set.points[i * 2 + 1]!;
      const dx = x - lastX;
      const dy = y - lastY;
      // Three points at least stay of each ring.
      if (kept > 0 && dx * dx + dy * dy < limit && !((i - start) % step === 0 && kept < 3)) continue;
      points[out * 2] = x;
      points[out * 2 + 1] = y;
      out++;
      kept++;
      lastX = x;
      lastY = y;
    }
  }
  pointStart[rings] = out;
  return { tolerance, pointStart, points: points.slice(0, out * 2) };
}

export class DetailLevels {
  private readonly levels = new Map<number, DetailLevel>();
  private readonly full: DetailLevel;

  constructor(private readonly set: OutlineSet) {
    this.full = { tolerance: 0, pointStart: set.pointStart, points: set.points };
  }

  /** The coarsest level that looks the same at this scale (screen pixels per image pixel). */
  at(scale: number): DetailLevel {
    const level = Math.floor(Math.log2(0.9 / scale));
    if (level < 0 || this.set.points.length < 20_000) return this.full;
    const capped = Math.min(level, 12);
    let found = this.levels.get(capped);
    if (!found) {
      found = thin(this.set, 2 ** capped);
      this.levels.set(capped, found);
    }
    return found;
  }
}
