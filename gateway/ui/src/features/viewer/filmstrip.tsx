// The other images of the project, below the picture; only those in sight exist.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../../i18n";
import { Link } from "../../router";
import { imageState } from "../../store/jobs";
import type { ProjectStore } from "../../store/project";
import { statusWords } from "../../components/status";
import { Thumb } from "../gallery/card";

const STEP = 100;
const SPARE = 4;

function Frame({ store, id, current, at }: { store: ProjectStore; id: string; current: boolean; at: number }): JSX.Element | null {
  const image = store.image(id)?.value;
  if (!image) return null;
  return (
    <Link
      class={current ? "film-frame current" : "film-frame"} href={`/projects/${store.id}/images/${id}`} title={image.name}
      style={{ transform: `translateX(${at * STEP}px)` }} aria-current={current ? "true" : undefined}
      aria-label={`${image.name}, ${statusWords(image)}`} tabIndex={current ? 0 : -1}
    >
      <Thumb image={image} />
      <i class={`film-state film-${imageState(image)}`} />
    </Link>
  );
}

export function Filmstrip({ store, currentId }: { store: ProjectStore; currentId: string }): JSX.Element {
  const scroller = useRef<HTMLElement>(null);
  const [left, setLeft] = useState(0);
  const [width, setWidth] = useState(1200);
  const ids = store.order.value;
  const at = ids.indexOf(currentId);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = scroller.current;
    if (!element || at < 0) return;
    element.scrollLeft = at * STEP - element.clientWidth / 2 + STEP / 2;
    setLeft(element.scrollLeft);
  }, [at < 0, currentId]);

  const first = Math.max(0, Math.floor(left / STEP) - SPARE);
  const last = Math.min(ids.length, Math.ceil((left + width) / STEP) + SPARE);
  return (
    <nav class="filmstrip" ref={scroller} aria-label={t("viewer.filmstrip")} onScroll={(event) => setLeft(event.currentTarget.scrollLeft)}>
      <div class="film-track" style={{ width: `${ids.length * STEP}px` }}>
        {ids.slice(first, last).map((id, i) => (
          <Frame key={id} store={store} id={id} current={id === currentId} at={first + i} />
        ))}
      </div>
    </nav>
  );
}
