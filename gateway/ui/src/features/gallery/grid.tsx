// The virtual grid: only the rows on the screen exist, so that ten thousand images scroll like fifty.
import type { JSX } from "preact";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../../i18n";
import type { ProjectStore } from "../../store/project";
import { cardSize } from "../../store/settings";
import { ImageCard } from "./card";
import { GRID_GAP, gridShape, visibleRows } from "./select";

const targets = { s: 150, m: 220, l: 320 } as const;
const SPARE_ROWS = 2;

interface GridProps {
  store: ProjectStore;
  ids: readonly string[];
  selected: ReadonlySet<string>;
  onSelect: (id: string, range: boolean) => void;
}

export function Grid({ store, ids, selected, onSelect }: GridProps): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [top, setTop] = useState(0);
  const [focused, setFocused] = useState<string | null>(null);
  const memoryKey = `sg.scroll.${store.id}`;
  const restored = useRef(false);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const measure = (): void => {
      const style = getComputedStyle(element);
      const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
      setSize({ width: element.clientWidth - padding, height: element.clientHeight });
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const shape = gridShape(size.width, ids.length, size.width < 520 ? Math.min(targets[cardSize.value], 150) : targets[cardSize.value]);

  useEffect(() => {
    const element = scroller.current;
    if (!element || restored.current || size.width === 0 || ids.length === 0) return;
    const wanted = Number(sessionStorage.getItem(memoryKey) ?? 0);
    if (wanted > 0 && shape.rows * shape.rowHeight < wanted && !store.complete.value) return;
    restored.current = true;
    if (wanted > 0) element.scrollTop = wanted;
  });

  const scrolled = (): void => {
    const element = scroller.current;
    if (!element) return;
    // Whole rows are enough: the state changes only when other rows are needed.
    setTop(Math.floor(element.scrollTop / shape.rowHeight) * shape.rowHeight);
    if (restored.current) sessionStorage.setItem(memoryKey, String(Math.round(element.scrollTop)));
  };

  const focusAt = (index: number): void => {
    const id = ids[index];
    const element = scroller.current;
    if (id === undefined || !element) return;
    const rowTop = Math.floor(index / shape.columns) * shape.rowHeight;
    if (rowTop < element.scrollTop) element.scrollTop = rowTop;
    else if (rowTop + shape.rowHeight > element.scrollTop + size.height) element.scrollTop = rowTop + shape.rowHeight - size.height;
    scrolled();
    setFocused(id);
    requestAnimationFrame(() =>
      requestAnimationFrame(() => element.querySelector<HTMLElement>(`[data-image-id="${id}"] .image-link`)?.focus({ preventScroll: true })),
    );
  };

  const keys = (event: KeyboardEvent): void => {
    const at = focused === null ? -1 : ids.indexOf(focused);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(size.height / shape.rowHeight)) * shape.columns;
    const moves: Readonly<Record<string, number>> = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + shape.columns, ArrowUp: at - shape.columns,
      PageDown: Math.min(ids.length - 1, at + page), PageUp: Math.max(0, at - page), Home: 0, End: ids.length - 1,
    };
    const next = moves[event.key];
    if (next !== undefined) {
      event.preventDefault();
      focusAt(next);
    } else if (event.key === " " && event.target instanceof HTMLAnchorElement) {
      event.preventDefault();
      onSelect(ids[at] as string, event.shiftKey);
    }
  };

  const focus = useCallback((id: string) => setFocused(id), []);
  const [first, last] = visibleRows(shape, top, size.height, SPARE_ROWS);
  const cells: JSX.Element[] = [];
  const focusId = focused !== null && ids.includes(focused) ? focused : ids[0];
  for (let i = first * shape.columns; i < Math.min(ids.length, last * shape.columns); i++) {
    const id = ids[i] as string;
    const held = store.image(id);
    if (!held) continue;
    const x = (i % shape.columns) * (shape.cardWidth + GRID_GAP);
    const y = Math.floor(i / shape.columns) * shape.rowHeight;
    cells.push(
      <div
        key={id} class="grid-cell" role="listitem" aria-setsize={ids.length} aria-posinset={i + 1}
        style={{ transform: `translate(${x}px, ${y}px)`, width: `${shape.cardWidth}px`, height: `${shape.rowHeight - GRID_GAP}px` }}
      >
        <ImageCard
          held={held} selected={selected.has(id)} selecting={selected.size > 0} focusable={id === focusId}
          onSelect={onSelect} onFocus={focus}
        />
      </div>,
    );
  }
  return (
    <div class="gallery-scroll" ref={scroller} onScroll={scrolled} onKeyDown={keys} data-testid="gallery-scroll">
      <div class="grid-canvas" role="list" aria-label={t("gallery.list")} style={{ height: `${shape.rows * shape.rowHeight}px` }}>
        {size.width > 0 && cells}
      </div>
    </div>
  );
}
