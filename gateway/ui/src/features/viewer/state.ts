// What the viewer shows: the result of the image, what is selected, and how it is displayed.
import { batch, computed, signal } from "@preact/signals";
import { images } from "../../api/endpoints";
import { Problem } from "../../api/problem";
import type { Image, Segmentation } from "../../api/types";
import { colourRange, colourSteps } from "../../outlines/colours";
import { parseOutlines, type OutlineSet } from "../../outlines/parse";
import { Preview } from "./preview";
import { emptyColumns, fillColumns, maskOf, sortObjects, type ColumnKey, type Columns, type RangeFilter } from "./measures";

const OUTLINE_PAGE = 20_000;
const FEATURE_PAGE = 2_000;

export interface Display {
  brightness: number;
  contrast: number;
  gamma: number;
  width: number;
  opacity: number;
  visible: boolean;
  holes: boolean;
  fill: boolean;
  colourBy: ColumnKey | null;
}

export const plainDisplay: Display = {
  brightness: 0, contrast: 1, gamma: 1, width: 1.5, opacity: 1, visible: true, holes: true, fill: false, colourBy: null,
};

/** Kept from image to image: a series is looked at with the same eyes. */
export const display = signal<Display>(plainDisplay);

export function setDisplay(change: Partial<Display>): void {
  display.value = { ...display.peek(), ...change };
}

export class ResultState {
  /** What is finished of an image that has no result yet; drawn, but not listed or measured. */
  readonly preview = new Preview();
  readonly outlines = signal<OutlineSet | null>(null);
  readonly columns = signal<Columns>(new Map());
  /** Share of the measurements that has arrived; 1 when all. */
  readonly measured = signal(0);
  readonly segmentation = signal<Segmentation | null>(null);
  readonly problem = signal<unknown>(null);
  /** False while the current result has not been read, or it is known that there is none. */
  readonly settled = signal(false);
  /** Objects by their place in `outlines`; -1: none. */
  readonly selected = signal(-1);
  readonly hovered = signal(-1);
  readonly filter = signal<RangeFilter | null>(null);
  readonly sortKey = signal<ColumnKey | "idx">("idx");
  readonly descending = signal(false);

  readonly mask = computed(() => {
    const set = this.outlines.value;
    return set ? maskOf(this.columns.value, set.count, this.filter.value) : null;
  });
  readonly list = computed(() => {
    const set = this.outlines.value;
    return set ? sortObjects(this.columns.value, set, this.sortKey.value, this.descending.value, this.mask.value) : [];
  });
  readonly colouring = computed(() => {
    const key = display.value.colourBy;
    const column = key ? this.columns.value.get(key) : undefined;
    if (!key || !column) return null;
    const range = colourRange(column);
    return { key, range, steps: colourSteps(column, range) };
  });

  private abort = new AbortController();
  private loadedFor: string | null = null;

  constructor(readonly imageId: string) {}

  dispose(): void {
    this.abort.abort();
    this.preview.dispose();
  }

  /** Reads the result when the image has one that is not held yet. Safe to call on every change of the image. */
  follow(image: Image): void {
    this.preview.follow(image);
    if (image.objectCount === null) {
      this.settled.value = true;
      return;
    }
    // A new completed job means a new result; any other state of a job leaves the current result in place.
    const key = image.job?.state === "completed" ? image.job.id : (this.loadedFor ?? "current");
    if (key === this.loadedFor) return;
    this.loadedFor = key;
    this.abort.abort();
    this.abort = new AbortController();
    void this.read(this.abort.signal);
  }

  retry(): void {
    this.abort.abort();
    this.abort = new AbortController();
    void this.read(this.abort.signal);
  }

  private async read(stop: AbortSignal): Promise<void> {
    this.settled.value = false;
    this.problem.value = null;
    try {
      const pages: ArrayBuffer[] = [];
      let after: number | null = null;
      do {
        const page: Awaited<ReturnType<typeof images.outlines>> = await images.outlines(this.imageId, after, OUTLINE_PAGE, stop);
        pages.push(page.data);
        after = page.next;
      } while (after !== null);
      const set = parseOutlines(pages);
      batch(() => {
        this.selected.value = -1;
        this.hovered.value = -1;
        this.measured.value = set.count ? 0 : 1;
        this.columns.value = emptyColumns(set);
        this.outlines.value = set;
        this.settled.value = true;
      });
      this.preview.dispose();
      this.segmentation.value = await images.segmentation(this.imageId);
      await this.readMeasurements(set, stop);
    } catch (error) {
      if (stop.aborted) return;
      this.preview.dispose();
      if (!(error instanceof Problem && error.status === 404)) this.problem.value = error;
      this.settled.value = true;
    }
  }

  private async readMeasurements(set: OutlineSet, stop: AbortSignal): Promise<void> {
    const columns = new Map(this.columns.peek());
    let after: number | null = null;
    let read = 0;
    do {
      const page: Awaited<ReturnType<typeof images.features>> = await images.features(this.imageId, after, FEATURE_PAGE, stop);
      fillColumns(columns, set, page.features);
      read += page.features.length;
      after = page.nextAfter;
      batch(() => {
        this.columns.value = new Map(columns);
        this.measured.value = after === null ? 1 : Math.min(0.99, read / Math.max(1, set.count));
      });
    } while (after !== null && !stop.aborted);
  }
}
