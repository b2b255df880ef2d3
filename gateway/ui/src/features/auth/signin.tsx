// Sign in, or make an account.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { auth } from "../../api/endpoints";
import { problemWords, Problem } from "../../api/problem";
import { startSession } from "../../api/session";
import { Icon, Logo } from "../../components/icon";
import { t } from "../../i18n";
import { LanguageSelect } from "../settings/language";
import { Specimen } from "./specimen";

const MIN_PASSWORD = 10;

export function SignIn(): JSX.Element {
  const [registering, setRegistering] = useState(false);
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [name, setName] = useState("");
  const [shown, setShown] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const first = useRef<HTMLInputElement>(null);

  useEffect(() => {
    document.title = `${t(registering ? "auth.register" : "auth.signIn")} · Spheroseg`;
    first.current?.focus();
  }, [registering]);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (!/^\S+@\S+$/.test(email.trim())) return setError(t("auth.emailInvalid"));
    if (registering && password.length < MIN_PASSWORD) return setError(t("auth.passwordShort", { n: MIN_PASSWORD }));
    if (!password) return setError(t("auth.passwordMissing"));
    setBusy(true);
    setError("");
    try {
      const mail = email.trim();
      startSession(registering ? await auth.register(mail, password, name.trim()) : await auth.login(mail, password));
    } catch (problem) {
      const wrong = !registering && problem instanceof Problem && problem.status === 401;
      setError(wrong ? t("auth.wrong") : problemWords(problem));
      setBusy(false);
    }
  };

  return (
    <div class="signin">
      <section class="signin-art" aria-hidden="true">
        <Specimen />
        <p class="signin-line">{t("auth.tagline")}</p>
      </section>
      <main class="signin-main">
        <form class="signin-form" onSubmit={(event) => void submit(event)} noValidate>
          <div class="signin-brand">
            <Logo size={40} />
            <span>Spheroseg</span>
          </div>
          <h1>{t(registering ? "auth.register" : "auth.signIn")}</h1>
          {error && (
            <div class="notice notice-error" role="alert" id="signin-error" data-testid="signin-error">
              <Icon name="alert" />
              <span>{error}</span>
            </div>
          )}
          {registering && (
            <label class="field">
              <span>{t("auth.name")} <em>{t("auth.optional")}</em></span>
              <input
                class="input" type="text" autocomplete="name" maxLength={120} value={name} data-testid="register-name"
                onInput={(event) => setName(event.currentTarget.value)}
              />
            </label>
          )}
          <label class="field">
            <span>{t("auth.email")}</span>
            <input
              ref={first} class="input" type="email" autocomplete="username" required maxLength={254} value={email}
              data-testid="signin-email" aria-describedby={error ? "signin-error" : undefined}
              onInput={(event) => setEmail(event.currentTarget.value)}
            />
          </label>
          <div class="field">
            <label for="password">{t("auth.password")}</label>
            <div class="input-with-button">
              <input
                id="password" class="input" type={shown ? "text" : "password"} required maxLength={256} value={password}
                autocomplete={registering ? "new-password" : "current-password"} data-testid="signin-password"
                aria-describedby="password-hint" onInput={(event) => setPassword(event.currentTarget.value)}
              />
              <button
                class="icon-btn" type="button" aria-pressed={shown} aria-label={t("auth.showPassword")}
                title={t("auth.showPassword")} onClick={() => setShown(!shown)}
              >
                <Icon name={shown ? "eyeOff" : "eye"} size={18} />
              </button>
            </div>
            <small id="password-hint" class="hint">{registering ? t("auth.passwordHint", { n: MIN_PASSWORD }) : ""}</small>
          </div>
          <button class="btn btn-primary btn-wide" type="submit" disabled={busy} data-testid="signin-submit">
            {busy ? t("auth.wait") : t(registering ? "auth.register" : "auth.signIn")}
          </button>
          <p class="signin-switch">
            {t(registering ? "auth.haveAccount" : "auth.noAccount")}{" "}
            <button
              class="link" type="button" data-testid="register-toggle"
              onClick={() => {
                setRegistering(!registering);
                setError("");
              }}
            >
              {t(registering ? "auth.signIn" : "auth.register")}
            </button>
          </p>
        </form>
        <footer class="signin-foot"><LanguageSelect compact /></footer>
      </main>
    </div>
  );
}
