// Outlines for thumbnails: read when a card is shown, a few at a time, and kept for the cards seen last.
import { images } from "../api/endpoints";
import { parseOutlines, type OutlineSet } from "./parse";

const KEEP = 400;
const PARALLEL = 3;
const MAX_OBJECTS = 1_500;
/** More objects than this get thin lines, or nothing of the picture would be left to see. */
const DENSE = 150;

const kept = new Map<string, OutlineSet>();
const waiting: { key: string; run: () => Promise<void> }[] = [];
let running = 0;

function pump(): void {
  while (running < PARALLEL) {
    // The newest request first: it is the card that is on the screen now.
    const next = waiting.pop();
    if (!next) return;
    running++;
    void next.run().finally(() => {
      running--;
      pump();
    });
  }
}

export function keptOutlines(key: string): OutlineSet | undefined {
  return kept.get(key);
}

/** Calls back once with the outlines. The returned function takes the request off the list. */
export function wantOutlines(imageId: string, key: string, done: (set: OutlineSet) => void): () => void {
  const abort = new AbortController();
  const entry = {
    key,
    run: async (): Promise<void> => {
      if (abort.signal.aborted) return;
      try {
        const { data } = await images.outlines(imageId, null, MAX_OBJECTS, abort.signal);
        const set = parseOutlines([data]);
        kept.set(key, set);
        const oldest = kept.keys().next().value;
        if (kept.size > KEEP && oldest !== undefined) kept.delete(oldest);
        if (!abort.signal.aborted) done(set);
      } catch {
        // A thumbnail without outlines is still a thumbnail.
      }
    },
  };
  waiting.push(entry);
  pump();
  return () => {
    abort.abort();
    const at = waiting.indexOf(entry);
    if (at >= 0) waiting.splice(at, 1);
  };
}

export function paintThumb(canvas: HTMLCanvasElement, set: OutlineSet, width: number, height: number): void {
  const scale = Math.min(512 / Math.max(width, height), 2);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(scale, scale);
  context.lineJoin = "round";
  const dense = set.count > DENSE;
  const draw = (holes: 0 | 1, colour: string, dash: number[]): void => {
    context.beginPath();
    for (let r = 0; r < set.hole.length; r++) {
      if (set.hole[r] !== holes) continue;
      const start = set.pointStart[r]!;
      const end = set.pointStart[r + 1]!;
      context.moveTo(set.points[start * 2]!, set.points[start * 2 + 1]!);
      for (let i = start + 1; i < end; i++) context.lineTo(set.points[i * 2]!, set.points[i * 2 + 1]!);
      context.closePath();
    }
    context.setLineDash(dash.map((length) => length / scale));
    if (!dense) {
      context.lineWidth = 3.6 / scale;
      context.strokeStyle = "rgba(4,16,24,0.6)";
      context.stroke();
    }
    context.lineWidth = (dense ? 1.2 : 2) / scale;
    context.strokeStyle = colour;
    context.stroke();
  };
  draw(0, "#4cc9f0", []);
  draw(1, "#ffb000", [5, 4]);
}
