// Reader of the binary outlines of proto/polygons.md. The numbers land in flat arrays: ten thousand outlines are a
// handful of objects for the garbage collector, and drawing walks memory in order.

/** Outlines in image pixels. Object o has rings ringStart[o] … ringStart[o+1]-1; ring r has points pointStart[r] …. */
export interface OutlineSet {
  readonly count: number;
  readonly idx: Uint32Array;
  readonly area: Float32Array;
  readonly confidence: Float32Array;
  readonly ringStart: Uint32Array;
  readonly pointStart: Uint32Array;
  /** 1 where the ring bounds a hole. */
  readonly hole: Uint8Array;
  /** x, y, x, y … */
  readonly points: Float32Array;
  /** Four numbers an object: x0, y0, x1, y1. */
  readonly boxes: Float32Array;
}

export class OutlineError extends Error {
  override readonly name = "OutlineError";
}

const MAGIC = 0x31504753; // "SGP1", little-endian
const MAX_OBJECTS = 5_000_000;

interface Sizes {
  objects: number;
  rings: number;
  points: number;
}

type Visit = {
  object(idx: number, area: number, confidence: number): void;
  ring(hole: boolean, points: number, at: number): void;
};

function need(view: DataView, at: number, bytes: number): void {
  if (at + bytes > view.byteLength) throw new OutlineError("the outlines end too early");
}

function walk(view: DataView, visit: Visit): void {
  need(view, 0, 8);
  if (view.getUint32(0, true) !== MAGIC) throw new OutlineError("these are not outlines");
  const count = view.getUint32(4, true);
  if (count > MAX_OBJECTS) throw new OutlineError("too many outlines");
  let at = 8;
  for (let o = 0; o < count; o++) {
    need(view, at, 16);
    visit.object(view.getUint32(at, true), view.getFloat32(at + 4, true), view.getFloat32(at + 8, true));
    const end = at + 16 + view.getUint32(at + 12, true);
    at += 16;
    need(view, at, 4);
    if (view.getUint8(at) !== 1) throw new OutlineError("outlines of an unknown version");
    const polygons = view.getUint16(at + 2, true);
    at += 4;
    for (let p = 0; p < polygons; p++) {
      need(view, at, 2);
      const rings = view.getUint16(at, true);
      at += 2;
      for (let r = 0; r < rings; r++) {
        need(view, at, 4);
        const points = view.getUint32(at, true);
        at += 4;
        need(view, at, points * 8);
        visit.ring(r > 0, points, at);
        at += points * 8;
      }
    }
    if (at !== end) throw new OutlineError("an outline is not as long as it says");
  }
}

function measureAll(views: readonly DataView[]): Sizes {
  const sizes: Sizes = { objects: 0, rings: 0, points: 0 };
  for (const view of views)
    walk(view, {
      object: () => void sizes.objects++,
      ring: (_hole, points) => {
        sizes.rings++;
        sizes.points += points;
      },
    });
  return sizes;
}

/** Joins the pages of one result. Throws OutlineError when a page is not what it should be. */
export function parseOutlines(pages: readonly ArrayBuffer[]): OutlineSet {
  const views = pages.map((page) => new DataView(page));
  const sizes = measureAll(views);
  const set = {
    count: sizes.objects,
    idx: new Uint32Array(sizes.objects),
    area: new Float32Array(sizes.objects),
    confidence: new Float32Array(sizes.objects),
    ringStart: new Uint32Array(sizes.objects + 1),
    pointStart: new Uint32Array(sizes.rings + 1),
    hole: new Uint8Array(sizes.rings),
    points: new Float32Array(sizes.points * 2),
    boxes: new Float32Array(sizes.objects * 4),
  };
  let object = -1;
  let ring = 0;
  let point = 0;
  for (const view of views)
    walk(view, {
      object(idx, area, confidence) {
        object++;
        set.idx[object] = idx;
        set.area[object] = area;
        set.confidence[object] = confidence;
        set.ringStart[object] = ring;
        set.boxes.set([Infinity, Infinity, -Infinity, -Infinity], object * 4);
      },
      ring(hole, points, at) {
        set.hole[ring] = hole ? 1 : 0;
        set.pointStart[ring] = point;
        const box = object * 4;
        const { boxes } = set;
        for (let i = 0; i < points; i++) {
          const x = view.getInt32(at + i * 8, true) / 100;
          const y = view.getInt32(at + i * 8 + 4, true) / 100;
          set.points[point * 2] = x;
          set.points[point * 2 + 1] = y;
          point++;
          if (x < (boxes[box] as number)) boxes[box] = x;
          if (y < (boxes[box + 1] as number)) boxes[box + 1] = y;
          if (x > (boxes[box + 2] as number)) boxes[box + 2] = x;
          if (y > (boxes[box + 3] as number)) boxes[box + 3] = y;
        }
        ring++;
      },
    });
  set.ringStart[sizes.objects] = ring;
  set.pointStart[sizes.rings] = point;
  return set;
}

/** True when the point lies inside the object (even-odd over all its rings, so not in a hole). */
export function containsPoint(set: OutlineSet, object: number, x: number, y: number): boolean {
  const b = object * 4;
  const { boxes, points, pointStart } = set;
  if (x < boxes[b]! || y < boxes[b + 1]! || x > boxes[b + 2]! || y > boxes[b + 3]!) return false;
  let inside = false;
  for (let r = set.ringStart[object]!; r < set.ringStart[object + 1]!; r++) {
    const start = pointStart[r]!;
    const end = pointStart[r + 1]!;
    let px = points[(end - 1) * 2]!;
    let py = points[(end - 1) * 2 + 1]!;
    for (let i = start; i < end; i++) {
      const qx = points[i * 2]!;
      const qy = points[i * 2 + 1]!;
      if (qy > y !== py > y && x < ((px - qx) * (y - qy)) / (py - qy) + qx) inside = !inside;
      px = qx;
      py = qy;
    }
  }
  return inside;
}

/** The smallest object at a point, or -1. */
export function objectAt(set: OutlineSet, x: number, y: number, shown: (object: number) => boolean): number {
  let best = -1;
  for (let o = 0; o < set.count; o++) {
    if (!containsPoint(set, o, x, y) || !shown(o)) continue;
    if (best < 0 || set.area[o]! < set.area[best]!) best = o;
  }
  return best;
}
