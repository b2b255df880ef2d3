// fetch with the access token, one silent refresh on 401, and problems instead of bare statuses.
import { accessToken, endSession, refreshSession, tokenExpiresIn } from "./session";
import { networkProblem, Problem, readProblem } from "./problem";

export interface RequestOptions {
  method?: string;
  json?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

async function send(path: string, options: RequestOptions): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  const token = accessToken();
  if (token) headers["Authorization"] = `Bearer ${token}`;
  const init: RequestInit = { method: options.method ?? "GET", headers, credentials: "same-origin" };
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(options.json);
  }
  if (options.signal) init.signal = options.signal;
  try {
    return await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw networkProblem();
  }
}

/** Makes sure that the token is good for the next half minute. False: the person must sign in. */
export async function ensureToken(): Promise<boolean> {
  if (accessToken() && tokenExpiresIn() > 30_000) return true;
  try {
    return await refreshSession();
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw networkProblem();
  }
}

export async function request(path: string, options: RequestOptions = {}): Promise<Response> {
  const isPublic = /^\/api\/auth\/(login|register|refresh|logout)$/.test(path);
  if (!isPublic && !(await ensureToken())) throw new Problem(401, "unauthorized", "");
  let response = await send(path, options);
  if (response.status === 401 && !isPublic) {
    if (await refreshSession().catch(() => false)) response = await send(path, options);
    if (response.status === 401) endSession();
  }
  if (!response.ok) throw await readProblem(response);
  return response;
}

export async function requestJson<T>(path: string, options: RequestOptions = {}): Promise<T> {
  const response = await request(path, options);
  return (await response.json()) as T;
}

export async function requestNothing(path: string, options: RequestOptions = {}): Promise<void> {
  await request(path, options);
}

export function newKey(): string {
  return crypto.randomUUID();
}
