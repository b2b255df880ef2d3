// Short notices at the edge of the screen. Errors stay until they are closed; the rest leave by themselves.
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { problemWords } from "../api/problem";
import { t } from "../i18n";
import { Icon } from "./icon";

interface Toast {
  id: number;
  kind: "info" | "error";
  text: string;
  action?: { label: string; run: () => void };
}

const toasts = signal<readonly Toast[]>([]);
let nextId = 1;

function close(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

function add(toast: Omit<Toast, "id">, ms: number): void {
  const same = toasts.value.find((other) => other.text === toast.text && other.kind === toast.kind);
  if (same) return;
  const id = nextId++;
  toasts.value = [...toasts.value.slice(-3), { ...toast, id }];
  if (ms > 0) setTimeout(() => close(id), ms);
}

export function tell(text: string): void {
  add({ kind: "info", text }, 5_000);
}

export function tellProblem(error: unknown, retry?: () => void): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  const toast = { kind: "error" as const, text: problemWords(error) };
  add(retry ? { ...toast, action: { label: t("action.retry"), run: retry } } : toast, 0);
}

export function Toasts(): JSX.Element {
  return (
    <div class="toasts" role="region" aria-label={t("toast.region")} aria-live="polite">
      {toasts.value.map((toast) => (
        <div
          key={toast.id} class={`toast toast-${toast.kind}`} role={toast.kind === "error" ? "alert" : "status"}
          data-testid={toast.kind === "error" ? "error-toast" : "info-toast"}
        >
          <Icon name={toast.kind === "error" ? "alert" : "check"} />
          <span class="grow">{toast.text}</span>
          {toast.action && (
            <button
              class="btn btn-sm" type="button"
              onClick={() => {
                close(toast.id);
                toast.action?.run();
              }}
            >
              {toast.action.label}
            </button>
          )}
          <button class="icon-btn" type="button" aria-label={t("action.close")} onClick={() => close(toast.id)}>
            <Icon name="close" size={16} />
          </button>
        </div>
      ))}
    </div>
  );
}
