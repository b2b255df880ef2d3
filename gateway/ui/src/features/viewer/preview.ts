// Outlines of the finished regions of a large image, while its job still runs: read in parts, shown until the job ends.
// They are preliminary: when the job ends without a result or another attempt begins they are forgotten.
import { signal } from "@preact/signals";
import { segmentation } from "../../api/endpoints";
import type { Image } from "../../api/types";
import { parseOutlines, type OutlineSet } from "../../outlines/parse";

const EVERY_MS = 1500;
const MAX_PARTS = 64;

type Fetch = typeof segmentation.preview;

export class Preview {
  readonly outlines = signal<OutlineSet | null>(null);

  private job: string | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private abort = new AbortController();
  private of: string | null = null;
  private after = 0;
  private parts: ArrayBuffer[] = [];

  constructor(private readonly fetchParts: Fetch = segmentation.preview, private readonly everyMs = EVERY_MS) {}

  /** Safe to call on every change of the image. An image that has a result keeps it until the new one is there. */
  follow(image: Image): void {
    const job = image.objectCount === null && image.job?.state === "active" ? image.job.id : null;
    if (job === this.job) return;
    if (image.job?.state === "completed" && image.job.id === this.job) {
      this.stop(); // what is shown stays until the result, which holds the same objects, has been read
      return;
    }
    this.dispose();
    this.job = job;
    if (job) this.timer = setTimeout(() => void this.read(job), this.everyMs);
  }

  private stop(): void {
    clearTimeout(this.timer);
    this.abort.abort();
    this.abort = new AbortController();
  }

  dispose(): void {
    this.stop();
    this.job = null;
    this.forget(null);
  }

  private forget(of: string | null): void {
    this.of = of;
    this.after = 0;
    this.parts = [];
    this.outlines.value = null;
  }

  private async read(job: string): Promise<void> {
    const { signal: stop } = this.abort;
    let more = false;
    try {
      const part = await this.fetchParts(job, this.of, this.after, stop);
      if (stop.aborted) return;
      if (part.of !== this.of) this.forget(part.of);
      if (part.next !== null && this.parts.length < MAX_PARTS) {
        this.after = part.next;
        this.parts.push(part.data);
        this.outlines.value = parseOutlines(this.parts);
        more = true;
      }
    } catch {
      // A preview is a courtesy: the next look may bring it, and the result comes anyway.
    }
    if (!stop.aborted) this.timer = setTimeout(() => void this.read(job), more ? this.everyMs / 5 : this.everyMs);
  }
}
