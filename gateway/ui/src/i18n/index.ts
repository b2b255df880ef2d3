// Words in six languages. English is the source of keys; the others are loaded when chosen. A message with plural
// forms is an object keyed by the categories of Intl.PluralRules and chosen by the parameter `n`.
import { signal } from "@preact/signals";
import { en } from "./en";

export type PluralForms = { readonly other: string } & { readonly [C in Exclude<Intl.LDMLPluralRule, "other">]?: string };
export type Message = string | PluralForms;
export type Key = keyof typeof en;
export type Catalog = { readonly [K in Key]: (typeof en)[K] extends string ? string : PluralForms };
export type Params = Readonly<Record<string, string | number>>;

export const locales = ["en", "cs", "de", "es", "fr", "zh"] as const;
export type Locale = (typeof locales)[number];

export const localeNames: Readonly<Record<Locale, string>> = {
  en: "English", cs: "Čeština", de: "Deutsch", es: "Español", fr: "Français", zh: "中文",
};

const loaders: Readonly<Record<Exclude<Locale, "en">, () => Promise<Catalog>>> = {
  cs: async () => (await import("./cs")).cs,
  de: async () => (await import("./de")).de,
  es: async () => (await import("./es")).es,
  fr: async () => (await import("./fr")).fr,
  zh: async () => (await import("./zh")).zh,
};

const STORAGE_KEY = "sg.locale";
const current = signal<{ locale: Locale; catalog: Catalog }>({ locale: "en", catalog: en });

export function locale(): Locale {
  return current.value.locale;
}

export function hasMessage(key: string): boolean {
  return Object.hasOwn(en, key);
}

export function formatMessage(message: Message, params: Params | undefined, language: string, ordinal = false): string {
  let text: string;
  if (typeof message === "string") text = message;
  else {
    const n = Number(params?.["n"] ?? 0);
    const rules = new Intl.PluralRules(language, { type: ordinal ? "ordinal" : "cardinal" });
    text = message[rules.select(n)] ?? message.other;
  }
  if (!params) return text;
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = params[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? new Intl.NumberFormat(language).format(value) : value;
  });
}

/** The message in the reader's language. */
export function t(key: Key, params?: Params): string {
  const { locale: language, catalog } = current.value;
  return formatMessage(catalog[key], params, language);
}

/** As t(), with the plural form chosen by rank: 1st, 2nd, 3rd … */
export function tOrdinal(key: Key, params: Params): string {
  const { locale: language, catalog } = current.value;
  return formatMessage(catalog[key], params, language, true);
}

export async function setLocale(next: Locale): Promise<void> {
  const catalog = next === "en" ? en : await loaders[next]();
  current.value = { locale: next, catalog };
  document.documentElement.lang = next;
  try {
    localStorage.setItem(STORAGE_KEY, next);
  } catch {
    // The choice then lasts until the page is closed.
  }
}

export function pickLocale(stored: string | null, wanted: readonly string[]): Locale {
  for (const tag of [stored ?? "", ...wanted]) {
    const base = tag.toLowerCase().split("-")[0];
    const found = locales.find((l) => l === base);
    if (found) return found;
  }
  return "en";
}

export async function startLocale(): Promise<void> {
  let stored: string | null = null;
  try {
    stored = localStorage.getItem(STORAGE_KEY);
  } catch {
    stored = null;
  }
  const chosen = pickLocale(stored, navigator.languages);
  if (chosen !== "en") await setLocale(chosen).catch(() => undefined);
}
