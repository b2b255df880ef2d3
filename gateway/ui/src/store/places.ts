// Places in the queue. Lists of jobs do not carry them, because each costs the server a look into the queue; so only
// those next in line are asked for.
import { segmentation } from "../api/endpoints";
import type { Job } from "../api/types";

/** The jobs that will run first, as far as is known; those of unknown place by priority and age. */
export function nextInLine(waiting: readonly Job[], n: number): Job[] {
  return [...waiting]
    .sort((a, b) => {
      if (a.position !== null && b.position !== null && a.position !== b.position) return a.position - b.position;
      return b.priority - a.priority || (a.createdAt < b.createdAt ? -1 : 1);
    })
    .slice(0, n);
}

/** Reads the jobs next in line one by one. What cannot be read is left out. */
export async function readPlaces(waiting: readonly Job[], n: number): Promise<Job[]> {
  const results = await Promise.allSettled(nextInLine(waiting, n).map((job) => segmentation.job(job.id)));
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}
