// The score sheet of a model as a flat list.
export interface Score {
  set: string;
  name: string;
  value: number;
}

const MAX_SCORES = 24;

/** The numbers of a model's score sheet, whatever its depth. */
export function flatScores(scores: Record<string, unknown> | undefined): Score[] {
  const found: Score[] = [];
  const visit = (value: unknown, path: readonly string[], depth: number): void => {
    if (found.length >= MAX_SCORES || depth > 3) return;
    if (typeof value === "number" && Number.isFinite(value))
      found.push({ set: path.slice(0, -1).join(" · "), name: path.at(-1) ?? "", value });
    else if (value !== null && typeof value === "object" && !Array.isArray(value))
      for (const [key, inner] of Object.entries(value)) visit(inner, [...path, key], depth + 1);
  };
  visit(scores ?? {}, [], 0);
  return found;
}
