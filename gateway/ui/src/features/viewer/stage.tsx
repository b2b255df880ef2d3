// The picture: deep zoom below, outlines above, scale bar and tooltip on top.
import { effect } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { images } from "../../api/endpoints";
import type { Image } from "../../api/types";
import { problemWords } from "../../api/problem";
import { locale, t } from "../../i18n";
import { formatMeasure, formatNumber } from "../../i18n/format";
import { scaleColours } from "../../outlines/colours";
import { OutlineLayer, type View } from "../../outlines/layer";
import { objectAt } from "../../outlines/parse";
import type { DeepZoom } from "./deepzoom";
import { measureName } from "./names";
import { unitOf } from "./measures";
import { scaleBar } from "./scalebar";
import { display, type ResultState } from "./state";

declare global {
  interface Window {
    /** True when the tiles and the outlines of the shown image are painted. */
    __viewerReady?: boolean;
  }
}

export interface StageControls {
  fit(): void;
  zoomBy(factor: number): void;
  panBy(dx: number, dy: number): void;
  actualSize(): void;
  reveal(object: number): void;
}

const TOOLTIP_KEYS = ["area", "circularity", "feretMax"] as const;

function ScaleBar({ scale, pixelSizeUm }: { scale: number; pixelSizeUm: number | null }): JSX.Element | null {
  if (!(scale > 0)) return null;
  const known = pixelSizeUm !== null && pixelSizeUm > 0;
  const bar = scaleBar(known ? scale / pixelSizeUm : scale, 130);
  const inMm = known && bar.units >= 1000;
  return (
    <div class="scalebar" style={{ width: `${bar.pixels}px` }}>
      <span>{formatNumber(inMm ? bar.units / 1000 : bar.units, locale(), 3)} {known ? (inMm ? "mm" : "µm") : "px"}</span>
    </div>
  );
}

function Legend({ result, pixelSizeUm }: { result: ResultState; pixelSizeUm: number | null }): JSX.Element | null {
  const colouring = result.colouring.value;
  if (!colouring) return null;
  const { factor, unit } = unitOf(colouring.key, pixelSizeUm);
  const language = locale();
  return (
    <div class="legend">
      <div>{measureName(colouring.key)}{unit && ` (${unit})`}</div>
      <div class="legend-bar" style={{ background: `linear-gradient(90deg, ${scaleColours.join(",")})` }} />
      <div class="spread">
        <span>{formatMeasure(colouring.range[0] * factor, language)}</span>
        <span>{formatMeasure(colouring.range[1] * factor, language)}</span>
      </div>
    </div>
  );
}

function Tooltip({ result, at, pixelSizeUm }: { result: ResultState; at: { x: number; y: number; object: number }; pixelSizeUm: number | null }): JSX.Element | null {
  const object = result.hovered.value;
  const set = result.outlines.value;
  // An object hovered in the table is marked in the picture, but nothing points there.
  if (object < 0 || !set || object !== at.object) return null;
  const columns = result.columns.value;
  const language = locale();
  return (
    <div class="tooltip" style={{ transform: `translate(${at.x + 14}px, ${at.y + 14}px)` }} aria-hidden="true">
      <b>{t("viewer.object", { n: set.idx[object] ?? object })}</b>
      {TOOLTIP_KEYS.map((key) => {
        const value = columns.get(key)?.[object];
        if (value === undefined || !Number.isFinite(value)) return null;
        const { factor, unit } = unitOf(key, pixelSizeUm);
        return (
          <div key={key} class="spread">
            <span>{measureName(key)}</span>
            <span>{formatMeasure(value * factor, language)} {unit}</span>
          </div>
        );
      })}
    </div>
  );
}

/** Brightness, contrast and gamma as one look-up that the browser applies to the tiles. */
function ToneFilter(): JSX.Element {
  const { brightness, contrast, gamma } = display.value;
  const linear = { type: "linear", slope: contrast, intercept: 0.5 - 0.5 * contrast + brightness };
  const curve = { type: "gamma", amplitude: 1, exponent: 1 / gamma, offset: 0 };
  return (
    <svg width="0" height="0" class="tone" aria-hidden="true">
      <filter id="tone" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">
        <feComponentTransfer>
          <feFuncR {...linear} /><feFuncG {...linear} /><feFuncB {...linear} />
        </feComponentTransfer>
        <feComponentTransfer>
          <feFuncR {...curve} /><feFuncG {...curve} /><feFuncB {...curve} />
        </feComponentTransfer>
      </filter>
    </svg>
  );
}

interface StageProps {
  image: Image;
  result: ResultState;
  onControls: (controls: StageControls | null) => void;
}

export function Stage({ image, result, onControls }: StageProps): JSX.Element {
  const stage = useRef<HTMLDivElement>(null);
  const host = useRef<HTMLDivElement>(null);
  const base = useRef<HTMLCanvasElement>(null);
  const top = useRef<HTMLCanvasElement>(null);
  const [scale, setScale] = useState(0);
  const [pointer, setPointer] = useState({ x: 0, y: 0, object: -1 });
  const [problem, setProblem] = useState<unknown>(null);
  const [again, setAgain] = useState(0);

  useEffect(() => {
    const element = host.current;
    const baseCanvas = base.current;
    const topCanvas = top.current;
    const frame = stage.current;
    if (!element || !baseCanvas || !topCanvas || !frame) return undefined;
    let gone = false;
    let zoom: DeepZoom | null = null;
    let view: View = { scale: 0, x: 0, y: 0 };
    const ready = { tiles: false, outlines: false };
    window.__viewerReady = false;
    setProblem(null);
    const tellReady = (): void => {
      window.__viewerReady = ready.tiles && ready.outlines && !gone;
    };
    const layer = new OutlineLayer(baseCanvas, topCanvas);
    layer.onPainted = () => {
      ready.outlines = result.settled.peek() && view.scale > 0;
      tellReady();
    };
    const shown = (object: number): boolean => {
      const mask = result.mask.peek();
      return !mask || mask[object] === 1;
    };
    const hit = (x: number, y: number): number => {
      const set = result.outlines.peek();
      if (!set || !display.peek().visible || !view.scale) return -1;
      return objectAt(set, (x - view.x) / view.scale, (y - view.y) / view.scale, shown);
    };
    const stops = [
      effect(() => {
        ready.outlines = false;
        tellReady();
        void result.settled.value;
        layer.setOutlines(result.outlines.value ?? result.preview.outlines.value);
      }),
      effect(() => {
        const { width, opacity, visible, holes, fill } = display.value;
        const preliminary = result.outlines.value === null && result.preview.outlines.value !== null;
        layer.setStyle({ width, opacity: preliminary ? opacity * 0.6 : opacity, visible, holes, fill, steps: result.colouring.value?.steps ?? null, mask: result.mask.value });
      }),
      effect(() => layer.setMarks(result.selected.value, result.hovered.value)),
    ];
    const resize = new ResizeObserver(() => layer.resize(frame.clientWidth, frame.clientHeight));
    resize.observe(frame);
    layer.resize(frame.clientWidth, frame.clientHeight);

    let hoverFrame = 0;
    const move = (event: PointerEvent): void => {
      if (event.buttons) {
        result.hovered.value = -1;
        return;
      }
      const box = frame.getBoundingClientRect();
      const x = event.clientX - box.left;
      const y = event.clientY - box.top;
      cancelAnimationFrame(hoverFrame);
      hoverFrame = requestAnimationFrame(() => {
        const object = hit(x, y);
        result.hovered.value = object;
        setPointer({ x, y, object });
      });
    };
    const leave = (): void => {
      cancelAnimationFrame(hoverFrame);
      result.hovered.value = -1;
      setPointer({ x: 0, y: 0, object: -1 });
    };
    frame.addEventListener("pointermove", move);
    frame.addEventListener("pointerleave", leave);

    void (async () => {
      try {
        const [module, tiles] = await Promise.all([import("./deepzoom"), images.tiles(image.id)]);
        if (gone) return;
        const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
        const opened = new module.DeepZoom(element, image.id, tiles, calm, {
          onView(next) {
            view = next;
            layer.setView(next);
            setScale(next.scale);
          },
          onLoaded(loaded) {
            ready.tiles = loaded;
            tellReady();
          },
          onClick(x, y) {
            result.selected.value = hit(x, y);
          },
          onFailed() {
            setProblem(new Error("tiles"));
          },
        });
        zoom = opened;
        onControls({
          fit: () => opened.fit(),
          zoomBy: (factor) => opened.zoomBy(factor),
          panBy: (dx, dy) => opened.panBy(dx, dy),
          actualSize: () => opened.actualSize(),
          reveal(object) {
            const boxes = result.outlines.peek()?.boxes;
            const b = object * 4;
            if (boxes && b >= 0 && b < boxes.length) opened.reveal(boxes[b]!, boxes[b + 1]!, boxes[b + 2]!, boxes[b + 3]!);
          },
        });
      } catch (error) {
        if (!gone) setProblem(error);
      }
    })();
    return () => {
      gone = true;
      window.__viewerReady = false;
      onControls(null);
      frame.removeEventListener("pointermove", move);
      frame.removeEventListener("pointerleave", leave);
      cancelAnimationFrame(hoverFrame);
      resize.disconnect();
      for (const stop of stops) stop();
      layer.dispose();
      zoom?.destroy();
    };
  }, [image.id, result, again]);

  const { brightness, contrast, gamma } = display.value;
  const toned = brightness !== 0 || contrast !== 1 || gamma !== 1;
  return (
    <div class="stage" ref={stage} data-testid="stage">
      <ToneFilter />
      <div class={toned ? "stage-host toned" : "stage-host"} ref={host} aria-label={t("viewer.picture", { name: image.name })} role="img" />
      <canvas class="stage-outlines" ref={base} data-testid="viewer-canvas" aria-hidden="true" />
      <canvas class="stage-outlines" ref={top} aria-hidden="true" />
      <ScaleBar scale={scale} pixelSizeUm={image.pixelSizeUm} />
      <Legend result={result} pixelSizeUm={image.pixelSizeUm} />
      <Tooltip result={result} at={pointer} pixelSizeUm={image.pixelSizeUm} />
      {problem !== null && (
        <div class="stage-problem" role="alert">
          <p>{problem instanceof Error && problem.message === "tiles" ? t("viewer.noTiles") : problemWords(problem)}</p>
          <button class="btn" type="button" onClick={() => setAgain((n) => n + 1)}>{t("action.retry")}</button>
        </div>
      )}
    </div>
  );
}
