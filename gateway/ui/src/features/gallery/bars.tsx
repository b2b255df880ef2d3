// The bars of the gallery: actions, filters, and what can be done with a selection.
import type { JSX } from "preact";
import { Menu, Switch, type MenuItem } from "../../components/basics";
import { Icon } from "../../components/icon";
import { locale, t, type Key } from "../../i18n";
import { formatNumber } from "../../i18n/format";
import { setSearch } from "../../router";
import type { Counts } from "../../store/jobs";
import { autoSegment, cardSize } from "../../store/settings";
import { filters, orders, type Filter, type Order } from "./select";

interface HeadProps {
  counts: Counts;
  total: number;
  onUpload: () => void;
  onFolder: () => void;
  onSegment: (onlyMissing: boolean) => void;
  onDefaults: () => void;
  onRename: () => void;
  onCancelAll: () => void;
  onRetryFailed: () => void;
  onDelete: () => void;
}

export function HeadActions(props: HeadProps): JSX.Element {
  const { counts, total } = props;
  const unfinished = counts.queued + counts.delayed + counts.active;
  const missing = counts.none + counts.failed + counts.cancelled;
  const more: MenuItem[] = [{ label: t("segment.defaults"), icon: "settings", run: props.onDefaults, testId: "project-defaults" }];
  if (total > 0) more.push({ label: t("segment.all"), icon: "sparkle", run: () => props.onSegment(false) });
  if (counts.failed > 0) more.push({ label: t("gallery.retryFailed", { n: counts.failed }), icon: "retry", run: props.onRetryFailed });
  if (unfinished > 0) more.push({ label: t("gallery.cancelAll", { n: unfinished }), icon: "stop", run: props.onCancelAll });
  more.push(
    { label: t("projects.rename"), icon: "edit", run: props.onRename },
    { label: t("projects.delete"), icon: "trash", run: props.onDelete, danger: true },
  );
  return (
    <div class="head-actions">
      <Switch checked={autoSegment.value} onChange={(on) => (autoSegment.value = on)} testId="auto-segment">{t("upload.auto")}</Switch>
      {missing > 0 && unfinished === 0 && (
        <button class="btn" type="button" data-testid="segment-missing" onClick={() => props.onSegment(true)}>
          <Icon name="sparkle" size={18} />{t("segment.missing", { n: missing })}
        </button>
      )}
      <Menu
        class="btn btn-primary" label={t("upload.add")}
        items={[
          { label: t("upload.choose"), icon: "upload", run: props.onUpload },
          { label: t("upload.chooseFolder"), icon: "folder", run: props.onFolder },
        ]}
      >
        <Icon name="upload" size={18} />{t("upload.add")}
      </Menu>
      <Menu label={t("gallery.more")} items={more} testId="gallery-more" />
    </div>
  );
}

interface FilterProps {
  counts: Counts;
  total: number;
  filter: Filter;
  sort: Order;
  text: string;
}

export function FilterBar({ counts, total, filter, sort, text }: FilterProps): JSX.Element {
  const language = locale();
  const numbers: Readonly<Record<Filter, number>> = {
    all: total,
    waiting: counts.queued + counts.delayed,
    running: counts.active,
    done: counts.completed,
    failed: counts.failed,
    none: counts.none + counts.cancelled,
  };
  return (
    <div class="filter-bar">
      <div class="filters" role="group" aria-label={t("filter.label")}>
        {filters.map((name) => (
          <button
            key={name} class="filter" type="button" aria-pressed={filter === name} data-testid={`filter-${name}`}
            onClick={() => setSearch("show", name === "all" ? "" : name)}
          >
            {t(`filter.${name}` as Key)} <span class="filter-count">{formatNumber(numbers[name], language)}</span>
          </button>
        ))}
      </div>
      <label class="search">
        <Icon name="search" size={18} />
        <input
          class="input" type="search" placeholder={t("gallery.find")} aria-label={t("gallery.find")} value={text}
          onInput={(event) => setSearch("find", event.currentTarget.value)}
        />
      </label>
      <label class="sort">
        <span class="sr-only">{t("gallery.sort")}</span>
        <select class="input" value={sort} onChange={(event) => setSearch("sort", event.currentTarget.value === "newest" ? "" : event.currentTarget.value)}>
          {orders.map((name) => <option key={name} value={name}>{t(`sort.${name}` as Key)}</option>)}
        </select>
      </label>
      <div class="segmented sizes" role="radiogroup" aria-label={t("gallery.size")}>
        {(["s", "m", "l"] as const).map((size) => (
          <label key={size} title={t(`size.${size}` as Key)}>
            <input
              type="radio" name="card-size" checked={cardSize.value === size} aria-label={t(`size.${size}` as Key)}
              onChange={() => (cardSize.value = size)}
            />
            <span aria-hidden="true" class={`size-${size}`}><i /></span>
          </label>
        ))}
      </div>
    </div>
  );
}

interface BulkProps {
  count: number;
  total: number;
  onClear: () => void;
  onAll: () => void;
  onSegment: () => void;
  onCancel: () => void;
  onDelete: () => void;
}

export function BulkBar({ count, total, onClear, onAll, onSegment, onCancel, onDelete }: BulkProps): JSX.Element {
  return (
    <div class="bulk" role="toolbar" aria-label={t("bulk.label")} data-testid="bulk-bar">
      <b role="status">{t("bulk.selected", { n: count })}</b>
      {count < total && <button class="link" type="button" onClick={onAll}>{t("bulk.all", { n: total })}</button>}
      <span class="bulk-gap" />
      <button class="btn btn-sm btn-primary" type="button" data-testid="bulk-segment" onClick={onSegment}>
        <Icon name="sparkle" size={16} />{t("bulk.segment")}
      </button>
      <button class="btn btn-sm" type="button" data-testid="bulk-cancel" onClick={onCancel}>
        <Icon name="stop" size={16} />{t("bulk.cancel")}
      </button>
      <button class="btn btn-sm btn-danger-quiet" type="button" data-testid="bulk-delete" onClick={onDelete}>
        <Icon name="trash" size={16} />{t("action.delete")}
      </button>
      <button class="icon-btn" type="button" aria-label={t("bulk.clear")} title={t("bulk.clear")} onClick={onClear}>
        <Icon name="close" size={18} />
      </button>
    </div>
  );
}
