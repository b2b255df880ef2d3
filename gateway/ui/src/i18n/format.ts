// Numbers, sizes, times and dates as people of each language write them.

const cache = new Map<string, Intl.NumberFormat>();

function numberFormat(language: string, digits: number, fixed: boolean): Intl.NumberFormat {
  const key = `${language}/${digits}/${fixed}`;
  let format = cache.get(key);
  if (!format) {
    format = new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: fixed ? digits : 0 });
    cache.set(key, format);
  }
  return format;
}

/** At most so many digits after the point; exactly so many when `fixed`. */
export function formatNumber(value: number, language: string, digits = 0, fixed = false): string {
  return numberFormat(language, digits, fixed).format(value);
}

/** Three significant digits or so, with points below each other: what a measurement in a table needs. */
export function formatMeasure(value: number, language: string): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return formatNumber(value, language, size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3, true);
}

export function formatBytes(bytes: number, language: string): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${formatNumber(value, language, unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`;
}

export function formatPercent(fraction: number, language: string): string {
  const bounded = Math.min(1, Math.max(0, fraction));
  // 100 % is said only when it is true.
  const shown = bounded < 1 ? Math.floor(bounded * 100) / 100 : 1;
  return new Intl.NumberFormat(language, { style: "percent" }).format(shown);
}

const timeSteps: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity],
];

export function formatAgo(then: Date, now: Date, language: string): string {
  let value = Math.round((then.getTime() - now.getTime()) / 1000);
  for (const [unit, size] of timeSteps) {
    if (Math.abs(value) < size) return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(value, unit);
    value = Math.round(value / size);
  }
  return "";
}

export function formatDuration(seconds: number, language: string): string {
  const whole = Math.max(0, Math.round(seconds));
  const unit = (value: number, name: string): string =>
    new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "short" }).format(value);
  if (whole < 60) return unit(whole, "second");
  if (whole < 3600) return unit(Math.round(whole / 60), "minute");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.round((whole % 3600) / 60);
  return minutes ? `${unit(hours, "hour")} ${unit(minutes, "minute")}` : unit(hours, "hour");
}

export function formatDate(iso: string, language: string): string {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(date);
}
