// Theme, language, account.
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { auth } from "../../api/endpoints";
import { endSession, user } from "../../api/session";
import { Switch } from "../../components/basics";
import { confirmAction } from "../../components/dialog";
import { tellProblem } from "../../components/toasts";
import { locale, t } from "../../i18n";
import { formatDate } from "../../i18n/format";
import { navigate } from "../../router";
import { autoSegment, setTheme, theme, thumbOutlines, type Theme } from "../../store/settings";
import { setCrumbs } from "../shell/crumbs";
import { hasUnfinished } from "../upload/uploads";
import { LanguageSelect } from "./language";

const themes: readonly { value: Theme; label: "settings.system" | "settings.light" | "settings.dark" }[] = [
  { value: "system", label: "settings.system" },
  { value: "light", label: "settings.light" },
  { value: "dark", label: "settings.dark" },
];

async function signOut(): Promise<void> {
  if (hasUnfinished() && !(await confirmAction(t("settings.signOut"), t("settings.signOutUploads"), t("settings.signOut"))))
    return;
  try {
    await auth.logout();
  } catch (error) {
    tellProblem(error);
    return;
  }
  endSession();
  navigate("/signin", { replace: true });
}

export function SettingsScreen(): JSX.Element {
  const me = user.value;
  const language = locale();
  useEffect(() => setCrumbs([{ label: t("nav.settings") }]), [language]);
  return (
    <div class="page page-narrow">
      <h1>{t("nav.settings")}</h1>
      <section class="panel">
        <h2>{t("settings.look")}</h2>
        <fieldset class="field">
          <legend>{t("settings.theme")}</legend>
          <div class="segmented">
            {themes.map(({ value, label }) => (
              <label key={value}>
                <input type="radio" name="theme" checked={theme.value === value} onChange={() => setTheme(value)} />
                <span>{t(label)}</span>
              </label>
            ))}
          </div>
        </fieldset>
        <LanguageSelect />
      </section>
      <section class="panel">
        <h2>{t("settings.images")}</h2>
        <Switch checked={autoSegment.value} onChange={(on) => (autoSegment.value = on)}>{t("upload.auto")}</Switch>
        <Switch checked={thumbOutlines.value} onChange={(on) => (thumbOutlines.value = on)}>
          {t("settings.thumbOutlines")}
        </Switch>
      </section>
      <section class="panel">
        <h2>{t("settings.account")}</h2>
        <dl class="facts">
          <dt>{t("auth.name")}</dt>
          <dd>{me?.displayName || "–"}</dd>
          <dt>{t("auth.email")}</dt>
          <dd data-testid="account-email">{me?.email}</dd>
          <dt>{t("settings.since")}</dt>
          <dd>{me ? formatDate(me.createdAt, language) : ""}</dd>
        </dl>
        <button class="btn" type="button" data-testid="sign-out" onClick={() => void signOut()}>{t("settings.signOut")}</button>
      </section>
    </div>
  );
}
