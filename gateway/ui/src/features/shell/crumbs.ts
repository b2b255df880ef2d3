// Where one is; each screen says it.
import { signal } from "@preact/signals";

export interface Crumb {
  label: string;
  href?: string;
}

export const crumbs = signal<readonly Crumb[]>([]);

export function setCrumbs(list: readonly Crumb[]): void {
  crumbs.value = list;
  document.title = [...list].reverse().map((crumb) => crumb.label).concat("Spheroseg").join(" · ");
}
