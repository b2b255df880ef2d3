// The right side of the viewer: objects, measurements, display, facts.
import { Fragment, type JSX } from "preact";
import { useState } from "preact/hooks";
import type { Image } from "../../api/types";
import { problemWords } from "../../api/problem";
import { Bar, Switch } from "../../components/basics";
import { Icon } from "../../components/icon";
import { statusWords } from "../../components/status";
import { locale, t, type Key } from "../../i18n";
import { formatBytes, formatDate, formatMeasure, formatNumber } from "../../i18n/format";
import { isUnfinished, imageState } from "../../store/jobs";
import { modelTitle } from "../../store/models";
import { histogram, mainMeasures, measureKeys, summarise, unitOf, type ColumnKey } from "./measures";
import { optionWords } from "../gallery/options";
import { measureName } from "./names";
import { display, plainDisplay, setDisplay, type ResultState } from "./state";
import { ObjectTable } from "./table";

const BINS = 24;

function Filter({ result, pixelSizeUm }: { result: ResultState; pixelSizeUm: number | null }): JSX.Element {
  const filter = result.filter.value;
  const key: ColumnKey = filter?.key ?? "area";
  const { factor, unit } = unitOf(key, pixelSizeUm);
  const change = (next: { key?: ColumnKey; min?: string; max?: string }): void => {
    const number = (text: string | undefined, old: number | null): number | null => {
      if (text === undefined) return old;
      const value = text.trim() === "" ? Number.NaN : Number(text);
      return Number.isFinite(value) ? value / factor : null;
    };
    const sameKey = next.key === undefined;
    result.filter.value = {
      key: next.key ?? key,
      min: number(next.min, sameKey ? (filter?.min ?? null) : null),
      max: number(next.max, sameKey ? (filter?.max ?? null) : null),
    };
  };
  const shown = (value: number | null | undefined): string => (value === null || value === undefined ? "" : String(Number((value * factor).toPrecision(6))));
  const active = filter !== null && (filter.min !== null || filter.max !== null);
  return (
    <div class="range-filter" role="group" aria-label={t("viewer.filter")}>
      <select class="input" aria-label={t("viewer.filterBy")} value={key} onChange={(event) => change({ key: event.currentTarget.value as ColumnKey })}>
        {[...measureKeys, "confidence" as const].map((one) => <option key={one} value={one}>{measureName(one)}</option>)}
      </select>
      <input
        class="input" type="number" step="any" placeholder={t("viewer.from")} aria-label={`${t("viewer.from")} ${unit}`} key={`a${key}${active}`}
        defaultValue={shown(filter?.min)} onInput={(event) => change({ min: event.currentTarget.value })}
      />
      <input
        class="input" type="number" step="any" placeholder={t("viewer.to")} aria-label={`${t("viewer.to")} ${unit}`} key={`b${key}${active}`}
        defaultValue={shown(filter?.max)} onInput={(event) => change({ max: event.currentTarget.value })}
      />
      <button
        class="icon-btn" type="button" aria-label={t("viewer.clearFilter")} title={t("viewer.clearFilter")} disabled={!active}
        onClick={() => (result.filter.value = null)}
      >
        <Icon name="close" size={16} />
      </button>
    </div>
  );
}

/** What to say when there is no table: why, and what happens next. */
function NoResult({ image, result }: { image: Image; result: ResultState }): JSX.Element {
  const state = imageState(image);
  let text: string;
  if (result.problem.value) text = problemWords(result.problem.value);
  else if (isUnfinished(state)) text = t("viewer.onItsWay");
  else if (state === "failed" || state === "cancelled" || state === "none") text = t("viewer.noResult");
  else text = "";
  return (
    <div class="no-result">
      <b>{statusWords(image)}</b>
      {state === "active" && image.job && <Bar fraction={image.job.progress} label={statusWords(image)} />}
      <p class="muted">{text}</p>
      {result.problem.value !== null && (
        <button class="btn btn-sm" type="button" onClick={() => result.retry()}>{t("action.retry")}</button>
      )}
    </div>
  );
}

function Histogram({ result, name, pixelSizeUm }: { result: ResultState; name: ColumnKey; pixelSizeUm: number | null }): JSX.Element | null {
  const column = result.columns.value.get(name);
  if (!column) return null;
  const mask = result.mask.value;
  const summary = summarise(column, mask);
  if (!summary) return null;
  const bins = histogram(column, mask, summary, BINS);
  const tallest = Math.max(1, ...bins);
  const language = locale();
  const { factor, unit } = unitOf(name, pixelSizeUm);
  const show = (value: number): string => formatMeasure(value * factor, language);
  const coloured = display.value.colourBy === name;
  const selected = result.selected.value;
  const value = selected >= 0 ? column[selected] : undefined;
  const mark = value !== undefined && Number.isFinite(value) ? (value - summary.min) / (summary.max - summary.min || 1) : null;
  const words = t("viewer.summary", { mean: show(summary.mean), median: show(summary.median), sd: show(summary.deviation) });
  return (
    <section class="histogram">
      <header class="spread">
        <h2 class="sub">{measureName(name)}{unit && <small> {unit}</small>}</h2>
        <button
          class={coloured ? "link on" : "link"} type="button" aria-pressed={coloured}
          onClick={() => setDisplay({ colourBy: coloured ? null : name })}
        >
          {t("viewer.colourBy")}
        </button>
      </header>
      <svg viewBox={`0 0 ${BINS * 10} 60`} preserveAspectRatio="none" role="img" aria-label={`${measureName(name)}: ${words}`}>
        {[...bins].map((count, i) => {
          const height = count ? Math.max(1.5, (count / tallest) * 58) : 0;
          return <rect key={i} class="bin" x={i * 10 + 0.75} y={60 - height} width={8.5} height={height} />;
        })}
        {mark !== null && <line class="mark" x1={mark * BINS * 10} x2={mark * BINS * 10} y1={0} y2={60} />}
      </svg>
      <div class="spread small muted"><span>{show(summary.min)}</span><span>{show(summary.max)}</span></div>
      <div class="small">{words}</div>
    </section>
  );
}

interface SliderProps {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  digits?: number;
  onInput: (value: number) => void;
}

function Slider({ label, value, min, max, step, digits = 2, onInput }: SliderProps): JSX.Element {
  return (
    <label class="field slider">
      <span class="spread">{label}<output>{formatNumber(value, locale(), digits)}</output></span>
      <input type="range" min={min} max={max} step={step} value={value} onInput={(event) => onInput(Number(event.currentTarget.value))} />
    </label>
  );
}

function DisplayPanel(): JSX.Element {
  const now = display.value;
  return (
    <div class="inspector-scroll" tabIndex={0} role="group" aria-label={t("viewer.tab.display")}>
      <h2 class="sub">{t("viewer.picturePart")}</h2>
      <Slider label={t("viewer.brightness")} value={now.brightness} min={-0.5} max={0.5} step={0.01} onInput={(brightness) => setDisplay({ brightness })} />
      <Slider label={t("viewer.contrast")} value={now.contrast} min={0.2} max={5} step={0.05} onInput={(contrast) => setDisplay({ contrast })} />
      <Slider label={t("viewer.gamma")} value={now.gamma} min={0.2} max={4} step={0.05} onInput={(gamma) => setDisplay({ gamma })} />
      <h2 class="sub">{t("viewer.outlinePart")}</h2>
      <Switch checked={now.visible} onChange={(visible) => setDisplay({ visible })}>{t("viewer.showOutlines")}</Switch>
      <Switch checked={now.holes} onChange={(holes) => setDisplay({ holes })}>{t("viewer.showHoles")}</Switch>
      <Switch checked={now.fill} onChange={(fill) => setDisplay({ fill })}>{t("viewer.fill")}</Switch>
      <Slider label={t("viewer.lineWidth")} value={now.width} min={0.5} max={6} step={0.5} digits={1} onInput={(width) => setDisplay({ width })} />
      <Slider label={t("viewer.opacity")} value={now.opacity} min={0.1} max={1} step={0.05} onInput={(opacity) => setDisplay({ opacity })} />
      <label class="field">
        <span>{t("viewer.colourBy")}</span>
        <select
          class="input" value={now.colourBy ?? ""}
          onChange={(event) => setDisplay({ colourBy: (event.currentTarget.value || null) as ColumnKey | null })}
        >
          <option value="">{t("viewer.oneColour")}</option>
          {[...measureKeys, "confidence" as const].map((key) => <option key={key} value={key}>{measureName(key)}</option>)}
        </select>
      </label>
      <div class="key-lines" aria-hidden="true">
        <span><i class="line-outer" />{t("viewer.outer")}</span>
        <span><i class="line-hole" />{t("viewer.holes")}</span>
      </div>
      <button class="btn btn-sm" type="button" onClick={() => (display.value = plainDisplay)}>{t("viewer.reset")}</button>
    </div>
  );
}

function Facts({ image, result }: { image: Image; result: ResultState }): JSX.Element {
  const language = locale();
  const made = result.segmentation.value;
  return (
    <div class="inspector-scroll" tabIndex={0} role="group" aria-label={t("viewer.tab.info")}>
      <h2 class="sub">{t("viewer.picturePart")}</h2>
      <dl class="facts">
        <dt>{t("info.name")}</dt><dd class="break">{image.name}</dd>
        <dt>{t("info.size")}</dt><dd>{formatNumber(image.width, language)} × {formatNumber(image.height, language)} px</dd>
        <dt>{t("info.pixel")}</dt><dd>{image.pixelSizeUm ? `${formatNumber(image.pixelSizeUm, language, 4)} µm` : t("info.unknown")}</dd>
        <dt>{t("info.depth")}</dt><dd>{t("info.depthValue", { bits: image.bitDepth, n: image.channels })}</dd>
        {image.pages > 1 && <><dt>{t("info.pages")}</dt><dd>{formatNumber(image.pages, language)}</dd></>}
        <dt>{t("info.file")}</dt><dd>{image.format.toUpperCase()}, {formatBytes(image.byteSize, language)}</dd>
        <dt>{t("info.added")}</dt><dd>{formatDate(image.createdAt, language)}</dd>
      </dl>
      {made && (
        <>
          <h2 class="sub">{t("info.result")}</h2>
          <dl class="facts">
            <dt>{t("segment.model")}</dt><dd>{modelTitle(made.model)} {made.modelVersion}</dd>
            <dt>{t("segment.threshold")}</dt><dd>{formatNumber(made.threshold, language, 2)}</dd>
            <dt>{t("viewer.holes")}</dt><dd>{t(made.detectHoles ? "info.yes" : "info.no")}</dd>
            {optionWords(made.options).map(({ label, value }) => <Fragment key={label}><dt>{label}</dt><dd>{value}</dd></Fragment>)}
            <dt>{t("info.made")}</dt><dd>{formatDate(made.createdAt, language)}</dd>
            {made.note && <><dt>{t("info.note")}</dt><dd>{made.note}</dd></>}
          </dl>
        </>
      )}
    </div>
  );
}

const tabs = ["objects", "measures", "display", "info"] as const;
type Tab = (typeof tabs)[number];

interface InspectorProps {
  image: Image;
  result: ResultState;
  onReveal: (object: number) => void;
}

export function Inspector({ image, result, onReveal }: InspectorProps): JSX.Element {
  const [tab, setTab] = useState<Tab>("objects");
  const has = result.outlines.value !== null;
  const keys = (event: KeyboardEvent): void => {
    const move = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    const next = tabs[(tabs.indexOf(tab) + move + tabs.length) % tabs.length] as Tab;
    setTab(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <aside class="inspector" aria-label={t("viewer.inspector")} data-testid="inspector">
      <div class="tabs" role="tablist" onKeyDown={keys}>
        {tabs.map((name) => (
          <button
            key={name} id={`tab-${name}`} class="tab" type="button" role="tab" aria-selected={tab === name} aria-controls="tab-panel"
            tabIndex={tab === name ? 0 : -1} data-testid={`tab-${name}`} onClick={() => setTab(name)}
          >
            {t(`viewer.tab.${name}` as Key)}
          </button>
        ))}
      </div>
      <div class="tab-panel" role="tabpanel" id="tab-panel" aria-labelledby={`tab-${tab}`}>
        {tab === "objects" && (has ? (
          <>
            <Filter result={result} pixelSizeUm={image.pixelSizeUm} />
            <ObjectTable result={result} pixelSizeUm={image.pixelSizeUm} onReveal={onReveal} />
          </>
        ) : <NoResult image={image} result={result} />)}
        {tab === "measures" && (has ? (
          <div class="inspector-scroll" tabIndex={0} role="group" aria-label={t("viewer.tab.measures")}>
            {result.measured.value < 1 && <Bar fraction={result.measured.value} label={t("viewer.measuring")} />}
            {mainMeasures.map((key) => <Histogram key={key} result={result} name={key} pixelSizeUm={image.pixelSizeUm} />)}
          </div>
        ) : <NoResult image={image} result={result} />)}
        {tab === "display" && <DisplayPanel />}
        {tab === "info" && <Facts image={image} result={result} />}
      </div>
    </aside>
  );
}
