// The outlines over the deep-zoom image. One canvas, larger than the view by a margin, holds the drawn outlines. While
// the view moves, a drawing that is cheap is made anew for each frame; one that is dear is shifted and stretched by the
// compositor and made anew when the view rests or leaves the margin. So panning costs the same with ten outlines and
// with ten thousand. A second canvas on top holds what is hovered and selected and is always drawn anew.
import { CASING, HOLE, OUTER, scaleColours, SELECTED } from "./colours";
import { DetailLevels, type DetailLevel } from "./detail";
import type { OutlineSet } from "./parse";

/** Screen = image · scale + (x, y), in CSS pixels of the stage. */
export interface View {
  scale: number;
  x: number;
  y: number;
}

export interface OutlineStyle {
  width: number;
  opacity: number;
  visible: boolean;
  holes: boolean;
  fill: boolean;
  /** One step of the colour scale for each object, or null for one colour. */
  steps: Uint8Array | null;
  /** 1 for each object that is shown, or null for all. */
  mask: Uint8Array | null;
}

const MARGIN = 0.2;
const CHEAP_MS = 6;
const REST_MS = 90;
const MAX_STRETCH = 1.6;
const CASING_POINTS = 60_000;
const BATCH_POINTS = 300;
/** Key of the paths of holes, beside the steps of the colour scale. */
const HOLES = -2;

export class OutlineLayer {
  private set: OutlineSet | null = null;
  private details: DetailLevels | null = null;
  private style: OutlineStyle = { width: 1.5, opacity: 1, visible: true, holes: true, fill: false, steps: null, mask: null };
  private view: View = { scale: 1, x: 0, y: 0 };
  private drawn: View | null = null;
  private width = 0;
  private height = 0;
  private ratio = 1;
  private cost = 0;
  private restTimer: ReturnType<typeof setTimeout> | undefined;
  private frame = 0;
  private selected = -1;
  private hovered = -1;
  /** Called after the base canvas shows the current outlines at the current view. */
  onPainted: () => void = () => undefined;

  constructor(
    private readonly base: HTMLCanvasElement,
    private readonly top: HTMLCanvasElement,
  ) {}

  dispose(): void {
    clearTimeout(this.restTimer);
    cancelAnimationFrame(this.frame);
  }

  resize(width: number, height: number): void {
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    this.width = width;
    this.height = height;
    this.size(this.base, width * (1 + 2 * MARGIN), height * (1 + 2 * MARGIN), -width * MARGIN, -height * MARGIN);
    this.size(this.top, width, height, 0, 0);
    this.drawn = null;
    this.redraw();
  }

  private size(canvas: HTMLCanvasElement, width: number, height: number, left: number, top: number): void {
    canvas.width = Math.max(1, Math.round(width * this.ratio));
    canvas.height = Math.max(1, Math.round(height * this.ratio));
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.style.left = `${left}px`;
    canvas.style.top = `${top}px`;
  }

  setOutlines(set: OutlineSet | null): void {
    this.set = set;
    this.details = set ? new DetailLevels(set) : null;
    this.selected = -1;
    this.hovered = -1;
    this.redraw();
  }

  setStyle(style: OutlineStyle): void {
    this.style = style;
    this.redraw();
  }

  setMarks(selected: number, hovered: number): void {
    this.selected = selected;
    this.hovered = hovered;
    this.drawTop();
  }

  setView(view: View): void {
    const old = this.view;
    if (old.scale === view.scale && old.x === view.x && old.y === view.y && this.drawn) return;
    this.view = view;
    this.drawTop();
    if (this.cost <= CHEAP_MS || !this.drawn || this.leavesMargin()) {
      this.draw();
      return;
    }
    this.shift();
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => this.draw(), REST_MS);
  }

  private leavesMargin(): boolean {
    const { drawn, view } = this;
    if (!drawn) return true;
    const stretch = view.scale / drawn.scale;
    if (stretch > MAX_STRETCH || stretch < 1 / MAX_STRETCH) return true;
    // Where the drawn rectangle now lies, against the stage.
    const left = view.x + (-this.width * MARGIN - drawn.x) * stretch;
    const top = view.y + (-this.height * MARGIN - drawn.y) * stretch;
    const slack = 2;
    return (
      left > slack || top > slack ||
      left + this.width * (1 + 2 * MARGIN) * stretch < this.width - slack ||
      top + this.height * (1 + 2 * MARGIN) * stretch < this.height - slack
    );
  }

  private shift(): void {
    const { drawn, view } = this;
    if (!drawn) return;
    const stretch = view.scale / drawn.scale;
    const left = view.x + (-this.width * MARGIN - drawn.x) * stretch;
    const top = view.y + (-this.height * MARGIN - drawn.y) * stretch;
    this.base.style.transform = `translate(${left + this.width * MARGIN}px, ${top + this.height * MARGIN}px) scale(${stretch})`;
  }

  private redraw(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
      this.drawTop();
    });
  }

  private draw(): void {
    clearTimeout(this.restTimer);
    const context = this.base.getContext("2d");
    if (!context || this.width === 0) return;
    const start = performance.now();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.base.width, this.base.height);
    this.base.style.transform = "";
    this.drawn = { ...this.view };
    if (this.set && this.details && this.style.visible) this.paint(context, this.set, this.details.at(this.view.scale * this.ratio));
    // The canvas is painted later, by the compositor, at a cost much like that of recording it.
    this.cost = 0.7 * this.cost + 0.3 * 2 * (performance.now() - start);
    this.onPainted();
  }

  private paint(context: CanvasRenderingContext2D, set: OutlineSet, detail: DetailLevel): void {
    const { style, ratio } = this;
    const groups = new Map<number, Path2D[]>();
    const holes: Path2D[] = [];
    const room = new Map<number, number>();
    let points = 0;
    // Many small paths are drawn far faster than one of all outlines.
    const pathOf = (step: number, list: Path2D[], size: number): Path2D => {
      const left = room.get(step) ?? 0;
      if (left <= 0) list.push(new Path2D());
      room.set(step, (left <= 0 ? BATCH_POINTS : left) - size);
      return list.at(-1)!;
    };
    for (const object of this.objectsInSight(set)) {
      const step = style.steps ? style.steps[object]! : -1;
      let list = groups.get(step);
      if (!list) {
        list = [];
        groups.set(step, list);
      }
      const first = set.ringStart[object]!;
      const last = set.ringStart[object + 1]!;
      const size = detail.pointStart[last]! - detail.pointStart[first]!;
      points += size;
      const path = pathOf(step, list, size);
      for (let r = first; r < last; r++) {
        if (!set.hole[r]) this.trace(path, detail, r);
        else if (style.holes) this.trace(pathOf(HOLES, holes, detail.pointStart[r + 1]! - detail.pointStart[r]!), detail, r);
      }
    }
    const width = style.width * ratio;
    const cased = points < CASING_POINTS;
    context.lineJoin = cased ? "round" : "bevel";
    const stroke = (paths: readonly Path2D[], colour: string): void => {
      if (cased) {
        context.lineWidth = width + 1.6 * ratio;
        context.strokeStyle = CASING;
        for (const path of paths) context.stroke(path);
      }
      context.lineWidth = width;
      context.strokeStyle = colour;
      for (const path of paths) context.stroke(path);
    };
    if (style.fill) this.fill(context, set, detail);
    context.globalAlpha = style.opacity;
    for (const [step, paths] of groups) stroke(paths, step < 0 ? OUTER : scaleColours[step]!);
    if (holes.length) {
      context.setLineDash([5 * ratio, 3 * ratio]);
      stroke(holes, HOLE);
      context.setLineDash([]);
    }
    context.globalAlpha = 1;
  }

  /** The inside of the objects, holes left out. */
  private fill(context: CanvasRenderingContext2D, set: OutlineSet, detail: DetailLevel): void {
    const { steps, opacity } = this.style;
    context.globalAlpha = opacity * 0.28;
    for (const object of this.objectsInSight(set)) {
      const path = new Path2D();
      for (let r = set.ringStart[object]!; r < set.ringStart[object + 1]!; r++) this.trace(path, detail, r);
      context.fillStyle = steps ? scaleColours[steps[object]!]! : OUTER;
      context.fill(path, "evenodd");
    }
  }

  private objectsInSight(set: OutlineSet): number[] {
    const { view, style } = this;
    const x0 = (-this.width * MARGIN - view.x) / view.scale;
    const y0 = (-this.height * MARGIN - view.y) / view.scale;
    const x1 = (this.width * (1 + MARGIN) - view.x) / view.scale;
    const y1 = (this.height * (1 + MARGIN) - view.y) / view.scale;
    const found: number[] = [];
    const { boxes } = set;
    for (let o = 0; o < set.count; o++) {
      if (style.mask && !style.mask[o]) continue;
      const b = o * 4;
      if (boxes[b]! > x1 || boxes[b + 1]! > y1 || boxes[b + 2]! < x0 || boxes[b + 3]! < y0) continue;
      found.push(o);
    }
    return found;
  }

  /** Adds a ring in device pixels of the base canvas. */
  private trace(path: Path2D, detail: DetailLevel, ring: number, margin = MARGIN): void {
    const { view, ratio } = this;
    const scale = view.scale * ratio;
    const dx = (view.x + this.width * margin) * ratio;
    const dy = (view.y + this.height * margin) * ratio;
    const start = detail.pointStart[ring]!;
    const end = detail.pointStart[ring + 1]!;
    if (end <= start) return;
    const { points } = detail;
    path.moveTo(points[start * 2]! * scale + dx, points[start * 2 + 1]! * scale + dy);
    for (let i = start + 1; i < end; i++) path.lineTo(points[i * 2]! * scale + dx, points[i * 2 + 1]! * scale + dy);
    path.closePath();
  }

  private drawTop(): void {
    const context = this.top.getContext("2d");
    const { set, details, ratio } = this;
    if (!context) return;
    context.clearRect(0, 0, this.top.width, this.top.height);
    if (!set || !details || !this.style.visible) return;
    const detail = details.at(this.view.scale * ratio);
    const mark = (object: number, width: number, fill: string): void => {
      if (object < 0 || object >= set.count) return;
      const path = new Path2D();
      for (let r = set.ringStart[object]!; r < set.ringStart[object + 1]!; r++) this.trace(path, detail, r, 0);
      context.fillStyle = fill;
      context.fill(path, "evenodd");
      context.lineWidth = (width + 2) * ratio;
      context.strokeStyle = CASING;
      context.stroke(path);
      context.lineWidth = width * ratio;
      context.strokeStyle = SELECTED;
      context.stroke(path);
    };
    if (this.hovered !== this.selected) mark(this.hovered, this.style.width, "rgba(255,255,255,0.10)");
    mark(this.selected, this.style.width + 1, "rgba(255,255,255,0.18)");
  }
}
