// The list of projects; read again while something in it is being worked on.
import { signal } from "@preact/signals";
import * as api from "../api/endpoints";
import type { Project } from "../api/types";

export const projectList = signal<readonly Project[] | null>(null);
export const projectsProblem = signal<unknown>(null);
let reading: Promise<void> | null = null;

async function readAll(): Promise<void> {
  try {
    const all: Project[] = [];
    let after: string | null = null;
    do {
      const page: Awaited<ReturnType<typeof api.projects.list>> = await api.projects.list(after);
      all.push(...page.items);
      after = page.nextAfter;
    } while (after);
    projectList.value = all;
    projectsProblem.value = null;
  } catch (error) {
    projectsProblem.value = error;
  } finally {
    reading = null;
  }
}

export function readProjects(): Promise<void> {
  reading ??= readAll();
  return reading;
}

export function busyJobs(project: Project): number {
  return project.jobs.queued + project.jobs.active;
}

/** How much of the project has been worked through, failures included. */
export function progressOf(project: Project): number {
  const { completed, failed, cancelled } = project.jobs;
  return project.imageCount === 0 ? 0 : Math.min(1, (completed + failed + cancelled) / project.imageCount);
}
