// What a person prefers, kept in this browser.
import { signal, type Signal } from "@preact/signals";

export function stored<T>(key: string, initial: T, valid: (value: unknown) => value is T): Signal<T> {
  let start = initial;
  try {
    const text = localStorage.getItem(key);
    const value: unknown = text === null ? null : JSON.parse(text);
    if (valid(value)) start = value;
  } catch {
    start = initial;
  }
  const held = signal(start);
  let first = true;
  held.subscribe((value) => {
    if (first) {
      first = false;
      return;
    }
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // Lasts until the page is closed.
    }
  });
  return held;
}

const isBoolean = (value: unknown): value is boolean => typeof value === "boolean";
const oneOf = <T extends string>(...list: readonly T[]) =>
  (value: unknown): value is T => list.includes(value as T);

export type Theme = "system" | "light" | "dark";

function storedTheme(): Theme {
  try {
    const value = localStorage.getItem("sg.theme");
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

export const theme = signal<Theme>(storedTheme());
/** Uploads are segmented at once. */
export const autoSegment = stored("sg.autoSegment", true, isBoolean);
export const thumbOutlines = stored("sg.thumbOutlines", true, isBoolean);
export const cardSize = stored<"s" | "m" | "l">("sg.cardSize", "m", oneOf("s", "m", "l"));

export function setTheme(next: Theme): void {
  theme.value = next;
  if (next === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", next);
  try {
    localStorage.setItem("sg.theme", next);
  } catch {
    // Lasts until the page is closed.
  }
}
