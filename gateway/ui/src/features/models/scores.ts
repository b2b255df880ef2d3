// The score sheet of a model as a table: a row for each set of images, a column for each measure.

export interface ScoreRow {
  set: string;
  images: number | null;
  values: ReadonlyMap<string, { value: number; baseline: number | null }>;
}

export interface ScoreTable {
  metrics: string[];
  rows: ScoreRow[];
}

const MAX_METRICS = 3;
const MAX_ROWS = 12;

function numbersOf(value: unknown): Map<string, number> {
  const found = new Map<string, number>();
  if (value === null || typeof value !== "object" || Array.isArray(value)) return found;
  for (const [key, inner] of Object.entries(value)) if (typeof inner === "number" && Number.isFinite(inner)) found.set(key, inner);
  return found;
}

/** A score lies between 0 and 1; counts of images and objects are not scores. */
function isScore(key: string, value: number): boolean {
  return value >= 0 && value <= 1 && !/^(images|objects|found)$/.test(key);
}

function rowOf(set: string, value: unknown): ScoreRow {
  const numbers = numbersOf(value);
  const baseline = numbersOf((value as { baseline?: unknown } | null)?.baseline);
  const values = new Map<string, { value: number; baseline: number | null }>();
  for (const [key, score] of numbers) if (isScore(key, score)) values.set(key, { value: score, baseline: baseline.get(key) ?? null });
  return { set, images: numbers.get("images") ?? null, values };
}

export function scoreTable(scores: Record<string, unknown> | undefined): ScoreTable {
  const rows: ScoreRow[] = [];
  const overall = rowOf("", scores ?? {});
  if (overall.values.size) rows.push(overall);
  for (const [set, value] of Object.entries(scores ?? {})) {
    const row = rowOf(set, value);
    if (row.values.size && rows.length < MAX_ROWS) rows.push(row);
  }
  const metrics = [...new Set(rows.flatMap((row) => [...row.values.keys()]))].slice(0, MAX_METRICS);
  return { metrics, rows };
}
