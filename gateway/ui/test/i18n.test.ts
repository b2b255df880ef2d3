// Every language has every word, with the same blanks, and the plural forms that its grammar asks for.
import assert from "node:assert/strict";
import { test } from "node:test";
import { formatMessage, pickLocale, type Catalog, type Message } from "../src/i18n";
import { cs } from "../src/i18n/cs";
import { de } from "../src/i18n/de";
import { en } from "../src/i18n/en";
import { es } from "../src/i18n/es";
import { fr } from "../src/i18n/fr";
import { zh } from "../src/i18n/zh";

const catalogs: Readonly<Record<string, Catalog>> = { en, cs, de, es, fr, zh };
const ordinal = new Set(["status.waitingNth"]);
const blanks = (text: string): string[] => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort();
const forms = (message: Message): string[] => (typeof message === "string" ? [message] : Object.values(message));

for (const [language, catalog] of Object.entries(catalogs)) {
  test(`${language}: no key is missing or left over`, () => {
    assert.deepEqual(Object.keys(catalog).sort(), Object.keys(en).sort());
  });

  test(`${language}: no message is empty and the blanks are those of English`, () => {
    for (const [key, message] of Object.entries(catalog) as [keyof typeof en, Message][]) {
      assert.equal(typeof message, typeof en[key], key);
      const wanted = blanks(forms(en[key]).join(" "));
      for (const text of forms(message)) {
        assert.ok(text.trim() !== "", key);
        for (const blank of blanks(text)) assert.ok(wanted.includes(blank), `${key}: ${blank}`);
      }
      const other = typeof message === "string" ? message : message.other;
      const enMessage: Message = en[key];
      assert.deepEqual(blanks(other), blanks(typeof enMessage === "string" ? enMessage : enMessage.other), key);
    }
  });

  test(`${language}: plural messages have each form that whole numbers need`, () => {
    for (const [key, message] of Object.entries(catalog) as [string, Message][]) {
      if (typeof message === "string") continue;
      const rules = new Intl.PluralRules(language, { type: ordinal.has(key) ? "ordinal" : "cardinal" });
      const needed = new Set(Array.from({ length: 200 }, (_, n) => rules.select(n)));
      for (const form of needed) assert.ok(message[form] !== undefined, `${key}: ${form}`);
    }
  });

  if (language !== "en")
    test(`${language}: is a translation`, () => {
      const same = (Object.keys(en) as (keyof typeof en)[]).filter((key) => JSON.stringify(catalog[key]) === JSON.stringify(en[key]));
      assert.ok(same.length < Object.keys(en).length * 0.12, `${same.length} messages as in English: ${same.join(", ")}`);
    });
}

test("numbers and names are filled in, and the form follows the number", () => {
  assert.equal(formatMessage(en["status.objects"], { n: 1 }, "en"), "1 object");
  assert.equal(formatMessage(en["status.objects"], { n: 1234 }, "en"), "1,234 objects");
  assert.equal(formatMessage(en["status.waitingNth"], { n: 3 }, "en", true), "Waiting, 3rd in line");
  assert.equal(formatMessage(en["status.waitingNth"], { n: 11 }, "en", true), "Waiting, 11th in line");
  assert.equal(formatMessage("{a} {b}", { a: "x" }, "en"), "x {b}");
});

test("the stored language wins, then the browser's, then English", () => {
  assert.equal(pickLocale("de", ["fr"]), "de");
  assert.equal(pickLocale(null, ["pt-BR", "cs-CZ", "en"]), "cs");
  assert.equal(pickLocale("xx", ["ja"]), "en");
  assert.equal(pickLocale(null, ["zh-Hant-TW"]), "zh");
});
