// The objects as a table of which only the rows on the screen exist. Selection is shared with the picture.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../../components/icon";
import { locale, t } from "../../i18n";
import { formatMeasure, formatNumber } from "../../i18n/format";
import { stored } from "../../store/settings";
import { measureKeys, unitOf, type ColumnKey } from "./measures";
import { measureName } from "./names";
import type { ResultState } from "./state";

const ROW = 30;
const SPARE = 8;
const allKeys: readonly ColumnKey[] = [...measureKeys, "confidence"];
const isKeys = (value: unknown): value is ColumnKey[] =>
  Array.isArray(value) && value.length > 0 && value.every((key) => allKeys.includes(key as ColumnKey));

export const tableKeys = stored<ColumnKey[]>("sg.columns", ["area", "circularity", "feretMax", "meanIntensity"], isKeys);

function Head({ result, label, unit, name }: { result: ResultState; label: string; unit: string; name: ColumnKey | "idx" }): JSX.Element {
  const active = result.sortKey.value === name;
  const down = result.descending.value;
  return (
    <div role="columnheader" class="ot-cell" aria-sort={active ? (down ? "descending" : "ascending") : "none"}>
      <button
        type="button" title={unit ? `${label} (${unit})` : label}
        onClick={() => {
          if (active) result.descending.value = !down;
          else {
            result.sortKey.value = name;
            result.descending.value = name !== "idx";
          }
        }}
      >
        <span>{label}</span>
        {active && <Icon name={down ? "down" : "up"} size={12} />}
      </button>
      <small>{unit || " "}</small>
    </div>
  );
}

interface TableProps {
  result: ResultState;
  pixelSizeUm: number | null;
  onReveal: (object: number) => void;
}

export function ObjectTable({ result, pixelSizeUm, onReveal }: TableProps): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(400);
  const [choosing, setChoosing] = useState(false);
  const set = result.outlines.value;
  const list = result.list.value;
  const columns = result.columns.value;
  const selected = result.selected.value;
  const hovered = result.hovered.value;
  const language = locale();
  const keys = tableKeys.value;
  const mine = useRef(false);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  // An object selected in the picture is brought into sight here.
  useEffect(() => {
    const element = scroller.current;
    if (mine.current) {
      mine.current = false;
      return;
    }
    if (selected < 0 || !element) return;
    const at = list.indexOf(selected);
    if (at < 0) return;
    const y = at * ROW;
    if (y < element.scrollTop || y + ROW > element.scrollTop + element.clientHeight - 44) element.scrollTop = y - element.clientHeight / 3;
  }, [selected]);

  const pick = (object: number): void => {
    mine.current = true;
    result.selected.value = object;
    onReveal(object);
  };
  const step = (event: KeyboardEvent): void => {
    const at = list.indexOf(selected);
    const page = Math.max(1, Math.floor(height / ROW) - 2);
    const moves: Readonly<Record<string, number>> = {
      ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: list.length - 1,
    };
    const to = moves[event.key];
    if (to === undefined || list.length === 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = list[Math.min(list.length - 1, Math.max(0, to))];
    if (next === undefined) return;
    result.selected.value = next;
    onReveal(next);
  };

  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(list.length, Math.ceil((top + height) / ROW) + SPARE);
  const layout = { gridTemplateColumns: `46px repeat(${keys.length}, minmax(62px, 1fr))`, minWidth: `${46 + keys.length * 62}px` };
  return (
    <div class="objects">
      <div class="objects-tools">
        <span data-testid="object-count" data-count={list.length}>
          {set && list.length !== set.count
            ? t("viewer.countFiltered", { n: list.length, total: set.count })
            : t("status.objects", { n: list.length })}
        </span>
        <button class="link" type="button" aria-expanded={choosing} onClick={() => setChoosing(!choosing)}>{t("viewer.columns")}</button>
      </div>
      {choosing && (
        <div class="column-list" role="group" aria-label={t("viewer.columns")}>
          {allKeys.map((key) => (
            <label key={key}>
              <input
                type="checkbox" checked={keys.includes(key)} disabled={keys.length === 1 && keys.includes(key)}
                onChange={(event) => {
                  tableKeys.value = event.currentTarget.checked ? allKeys.filter((k) => k === key || keys.includes(k)) : keys.filter((k) => k !== key);
                }}
              />
              {measureName(key)}
            </label>
          ))}
        </div>
      )}
      <div
        ref={scroller} class="ot" role="grid" aria-label={t("viewer.objects")} aria-rowcount={list.length + 1} tabIndex={0}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)} onKeyDown={step}
      >
        <div class="ot-head" role="row" aria-rowindex={1} style={layout}>
          <Head result={result} name="idx" label="#" unit="" />
          {keys.map((key) => (
            <Head key={key} result={result} name={key} label={measureName(key)} unit={unitOf(key, pixelSizeUm).unit} />
          ))}
        </div>
        <div class="ot-body" role="rowgroup" style={{ height: `${list.length * ROW}px`, minWidth: layout.minWidth }}>
          {list.slice(first, last).map((object, i) => (
            <div
              key={object} role="row" aria-rowindex={first + i + 2} aria-selected={object === selected} data-testid="object-row"
              data-idx={set?.idx[object]}
              class={`ot-row${object === selected ? " selected" : ""}${object === hovered ? " hovered" : ""}`}
              style={{ ...layout, transform: `translateY(${(first + i) * ROW}px)` }}
              onClick={() => pick(object)} onPointerEnter={() => (result.hovered.value = object)}
              onPointerLeave={() => (result.hovered.value = -1)}
            >
              <div role="gridcell" class="ot-cell">{formatNumber(set?.idx[object] ?? 0, language)}</div>
              {keys.map((key) => {
                const value = columns.get(key)?.[object];
                const write = key === "holes" ? formatNumber : formatMeasure;
                return (
                  <div key={key} role="gridcell" class="ot-cell">
                    {value === undefined || Number.isNaN(value) ? (result.measured.value < 1 ? "…" : "–") : write(value * unitOf(key, pixelSizeUm).factor, language)}
                  </div>
                );
              })}
            </div>
          ))}
        </div>
      </div>
    </div>
  );
}
