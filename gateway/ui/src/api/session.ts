// Who is signed in. The access token lives only in memory; the refresh token is a cookie that script cannot read.
// A refresh token may be used once, so refreshing is single-flight in this tab and, through a lock, across tabs.
import { signal } from "@preact/signals";
import type { Session, User } from "./types";
import { Problem, readProblem } from "./problem";

export const user = signal<User | null>(null);
/** "starting" until the first refresh has been answered. */
export const sessionState = signal<"starting" | "out" | "in">("starting");

const HINT_KEY = "sg.session";
let token: string | null = null;
let expiresAt = 0;
let refreshTimer: ReturnType<typeof setTimeout> | undefined;
let refreshing: Promise<boolean> | null = null;

function setHint(on: boolean): void {
  try {
    if (on) localStorage.setItem(HINT_KEY, "1");
    else localStorage.removeItem(HINT_KEY);
  } catch {
    // Storage may be forbidden: then every load asks once.
  }
}

function hasHint(): boolean {
  try {
    return localStorage.getItem(HINT_KEY) === "1";
  } catch {
    return true;
  }
}

export function accessToken(): string | null {
  return token;
}

export function tokenExpiresIn(): number {
  return expiresAt - Date.now();
}

export function startSession(session: Session): void {
  token = session.accessToken;
  expiresAt = Date.now() + session.expiresIn * 1000;
  user.value = session.user;
  sessionState.value = "in";
  setHint(true);
  clearTimeout(refreshTimer);
  // Well before the end, because <img> and tiles use a cookie of the same age and cannot ask for a new one.
  const wait = Math.max(5_000, Math.min(session.expiresIn * 1000 * 0.75, 2_000_000_000));
  refreshTimer = setTimeout(() => void refreshSession(), wait);
}

export function endSession(): void {
  token = null;
  expiresAt = 0;
  clearTimeout(refreshTimer);
  setHint(false);
  user.value = null;
  sessionState.value = "out";
}

async function requestRefresh(): Promise<boolean> {
  const response = await fetch("/api/auth/refresh", { method: "POST", credentials: "same-origin" });
  if (response.ok) {
    startSession((await response.json()) as Session);
    return true;
  }
  if (response.status === 401 || response.status === 403) {
    endSession();
    return false;
  }
  throw await readProblem(response);
}

/** True when there is a fresh token; false when the person must sign in. Throws when the server cannot be reached. */
export function refreshSession(): Promise<boolean> {
  refreshing ??= (async () => {
    try {
      const locks = navigator.locks as LockManager | undefined;
      return locks ? await locks.request("sg.refresh", requestRefresh) : await requestRefresh();
    } finally {
      refreshing = null;
    }
  })();
  return refreshing;
}

/** On load: silently continue the last session, if there was one. */
export async function resumeSession(): Promise<void> {
  if (!hasHint()) {
    sessionState.value = "out";
    return;
  }
  for (let attempt = 0; ; attempt++) {
    try {
      await refreshSession();
      return;
    } catch (error) {
      if (error instanceof Problem && error.status > 0 && error.status < 500 && error.status !== 429) {
        endSession();
        return;
      }
      await new Promise((r) => setTimeout(r, Math.min(10_000, 500 * 2 ** attempt)));
    }
  }
}

export function watchWake(): void {
  const check = (): void => {
    if (sessionState.value === "in" && tokenExpiresIn() < 60_000) void refreshSession().catch(() => undefined);
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") check();
  });
  window.addEventListener("online", check);
}
