// Errors of the API (RFC 9457) as one class, and the words a person reads.
import { hasMessage, t, type Key } from "../i18n";

export class Problem extends Error {
  constructor(
    /** HTTP status; 0 when the server was not reached. */
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly retryAfter: number | null = null,
  ) {
    super(detail || code);
    this.name = "Problem";
  }
}

export function networkProblem(): Problem {
  return new Problem(0, "network", "");
}

export function parseProblem(status: number, body: string, retryAfter: string | null): Problem {
  const seconds = retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
  try {
    const json = JSON.parse(body) as { code?: unknown; detail?: unknown; title?: unknown };
    const detail = typeof json.detail === "string" ? json.detail : typeof json.title === "string" ? json.title : "";
    return new Problem(status, typeof json.code === "string" ? json.code : "unknown", detail, seconds);
  } catch {
    return new Problem(status, "unknown", "", seconds);
  }
}

export async function readProblem(response: Response): Promise<Problem> {
  const body = await response.text().catch(() => "");
  return parseProblem(response.status, body, response.headers.get("Retry-After"));
}

/** What went wrong and what to do next, in the reader's language. The server's own detail is the fallback. */
export function problemWords(error: unknown): string {
  if (!(error instanceof Problem)) return t("error.unexpected");
  if (error.status === 0) return t("error.network");
  const byCode = `error.code.${error.code}`;
  if (hasMessage(byCode)) return t(byCode as Key);
  if (error.status === 429) return t("error.tooMany");
  if (error.status === 413) return t("error.tooLarge");
  if (error.status === 415) return t("error.notImage");
  if (error.status === 404) return t("error.notFound");
  if (error.status === 412) return t("error.changedElsewhere");
  if (error.status === 503) return error.detail || t("error.unavailable");
  if (error.status >= 500) return t("error.server");
  return error.detail || t("error.unexpected");
}
