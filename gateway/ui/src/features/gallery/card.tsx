// One image in the gallery.
import type { Signal } from "@preact/signals";
import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { images } from "../../api/endpoints";
import type { Image } from "../../api/types";
import { Bar } from "../../components/basics";
import { Icon } from "../../components/icon";
import { StatusChip, statusWords } from "../../components/status";
import { t } from "../../i18n";
import type { OutlineSet } from "../../outlines/parse";
import { keptOutlines, paintThumb, wantOutlines } from "../../outlines/thumbs";
import { Link } from "../../router";
import { imageState } from "../../store/jobs";
import { thumbOutlines } from "../../store/settings";

const SETTLE_MS = 120;
const KEPT_SETTLE_MS = 50;

/** The outlines over a thumbnail, read when the card has been on the screen for a moment. */
export function ThumbOutlines({ image }: { image: Image }): JSX.Element | null {
  const ref = useRef<HTMLCanvasElement>(null);
  const key = image.objectCount ? `${image.id}/${image.job?.state === "completed" ? image.job.id : ""}` : "";
  useEffect(() => {
    const canvas = ref.current;
    if (!canvas || !key) return undefined;
    let stop: (() => void) | undefined;
    // Cards that only fly by are not drawn on.
    const timer = setTimeout(() => {
      const paint = (set: OutlineSet): void => paintThumb(canvas, set, image.width, image.height);
      const held = keptOutlines(key);
      if (held) paint(held);
      else stop = wantOutlines(image.id, key, paint);
    }, keptOutlines(key) ? KEPT_SETTLE_MS : SETTLE_MS);
    return () => {
      clearTimeout(timer);
      stop?.();
    };
  }, [key]);
  return key ? <canvas ref={ref} class="thumb-outlines" width={1} height={1} aria-hidden="true" /> : null;
}

export function Thumb({ image }: { image: Image }): JSX.Element {
  const [broken, setBroken] = useState(0);
  const [ready, setReady] = useState(false);
  if (broken > 2) return <div class="thumb-broken"><Icon name="image" size={28} /></div>;
  return (
    <>
      <img
        class={ready ? "thumb ready" : "thumb"} alt="" decoding="async" draggable={false}
        src={images.thumbnailUrl(image.id) + (broken ? `?again=${broken}` : "")}
        onLoad={() => setReady(true)}
        onError={() => setTimeout(() => setBroken((n) => n + 1), 1_500)}
      />
      {thumbOutlines.value && <ThumbOutlines image={image} />}
    </>
  );
}

interface CardProps {
  held: Signal<Image>;
  selected: boolean;
  selecting: boolean;
  focusable: boolean;
  onSelect: (id: string, range: boolean) => void;
  onFocus: (id: string) => void;
}

export const ImageCard = memo(function ImageCard({ held, selected, selecting, focusable, onSelect, onFocus }: CardProps): JSX.Element {
  const image = held.value;
  const state = imageState(image);
  const { job } = image;
  return (
    <article
      class={`image-card${selected ? " selected" : ""}${selecting ? " selecting" : ""}`} data-testid="image-card"
      data-image-id={image.id} data-state={state}
    >
      <Link
        class="image-link" href={`/projects/${image.projectId}/images/${image.id}`} tabIndex={focusable ? 0 : -1}
        onFocus={() => onFocus(image.id)} draggable={false}
        onClick={(event) => {
          if (!event.shiftKey && !event.ctrlKey && !event.metaKey && !selecting) return;
          event.preventDefault();
          onSelect(image.id, event.shiftKey);
        }}
      >
        <div class="thumb-frame"><Thumb image={image} /></div>
        <div class="image-caption">
          <div class="image-name" title={image.name}>{image.name}</div>
          <StatusChip image={image} />
          {state === "active" && job && <Bar fraction={job.progress} label={statusWords(image)} tone="bar-card" />}
        </div>
      </Link>
      <label class="image-check">
        <input
          type="checkbox" checked={selected} aria-label={t("gallery.select", { name: image.name })} tabIndex={focusable ? 0 : -1}
          onClick={(event) => {
            event.stopPropagation();
            onSelect(image.id, event.shiftKey);
            event.currentTarget.checked = !selected;
          }}
        />
      </label>
    </article>
  );
});
