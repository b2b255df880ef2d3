// The choice of language.
import type { JSX } from "preact";
import { tellProblem } from "../../components/toasts";
import { locale, localeNames, locales, setLocale, t, type Locale } from "../../i18n";

export function LanguageSelect({ compact = false }: { compact?: boolean }): JSX.Element {
  return (
    <label class={compact ? "field field-inline" : "field"}>
      <span class={compact ? "sr-only" : ""}>{t("settings.language")}</span>
      <select
        class="input" value={locale()} data-testid="language"
        onChange={(event) => void setLocale(event.currentTarget.value as Locale).catch(tellProblem)}
      >
        {locales.map((code) => (
          <option key={code} value={code} lang={code}>{localeNames[code]}</option>
        ))}
      </select>
    </label>
  );
}
