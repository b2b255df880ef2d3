// Pure rules of the gallery: what is shown in which order, and how a selection grows.
import type { Image, ImageState } from "../../api/types";
import { imageState } from "../../store/jobs";

export type Filter = "all" | "waiting" | "running" | "done" | "failed" | "none";
export type Order = "newest" | "oldest" | "name" | "objects";

export const filters: readonly Filter[] = ["all", "waiting", "running", "done", "failed", "none"];
export const orders: readonly Order[] = ["newest", "oldest", "name", "objects"];

export function filterOf(state: ImageState): Filter {
  switch (state) {
    case "queued":
    case "delayed": return "waiting";
    case "active": return "running";
    case "completed": return "done";
    case "failed": return "failed";
    default: return "none";
  }
}

export function arrange(list: readonly Image[], filter: Filter, text: string, order: Order, language: string): Image[] {
  const wanted = text.trim().toLocaleLowerCase(language);
  const shown = list.filter(
    (image) =>
      (filter === "all" || filterOf(imageState(image)) === filter) &&
      (wanted === "" || image.name.toLocaleLowerCase(language).includes(wanted)),
  );
  if (order === "oldest") shown.reverse();
  else if (order === "name") {
    const collator = new Intl.Collator(language, { numeric: true });
    shown.sort((a, b) => collator.compare(a.name, b.name));
  } else if (order === "objects") shown.sort((a, b) => (b.objectCount ?? -1) - (a.objectCount ?? -1));
  return shown;
}

/** What is selected after a click: plain toggles one, with shift the range from the last one. */
export function selectNext(
  selected: ReadonlySet<string>, ids: readonly string[], id: string, last: string | null, range: boolean,
): Set<string> {
  const next = new Set(selected);
  const from = last === null ? -1 : ids.indexOf(last);
  const to = ids.indexOf(id);
  if (range && from >= 0 && to >= 0) {
    for (let i = Math.min(from, to); i <= Math.max(from, to); i++) next.add(ids[i] as string);
    return next;
  }
  if (!next.delete(id)) next.add(id);
  return next;
}

export interface GridShape {
  columns: number;
  rows: number;
  rowHeight: number;
  cardWidth: number;
}

export const GRID_GAP = 16;
const CAPTION = 62;

export function gridShape(width: number, count: number, target: number): GridShape {
  const columns = Math.max(1, Math.floor((width + GRID_GAP) / (target + GRID_GAP)));
  const cardWidth = Math.floor((width - GRID_GAP * (columns - 1)) / columns);
  return { columns, rows: Math.ceil(count / columns), rowHeight: Math.round(cardWidth * 0.75) + CAPTION + GRID_GAP, cardWidth };
}

/** First row and the one after the last that must exist for this scroll position. */
export function visibleRows(shape: GridShape, top: number, height: number, spare: number): [number, number] {
  const first = Math.max(0, Math.floor(top / shape.rowHeight) - spare);
  const last = Math.min(shape.rows, Math.ceil((top + height) / shape.rowHeight) + spare);
  return [Math.min(first, last), last];
}
