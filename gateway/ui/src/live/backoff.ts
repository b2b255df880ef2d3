// How long to wait before trying again.

/** Milliseconds before the next try: doubles up to half a minute; the random half keeps many tabs apart. */
export function backoff(failed: number, random: number): number {
  const full = Math.min(30_000, 500 * 2 ** Math.min(failed, 10));
  return Math.round(full / 2 + (full / 2) * random);
}
