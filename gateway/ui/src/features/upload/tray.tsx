// The upload tray: what is on its way, how fast, and why something was refused.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Bar } from "../../components/basics";
import { Icon } from "../../components/icon";
import { locale, t } from "../../i18n";
import { route } from "../../router";
import { formatBytes, formatDuration, formatPercent } from "../../i18n/format";
import {
  clearFinished, paused, removeUpload, retryAllFailed, retryUpload, setPaused, totals, trayOpen, uploadRevision, uploads,
  type Upload,
} from "./uploads";

const MAX_ROWS = 60;
const LEAVE_MS = 8_000;

function Row({ upload }: { upload: Upload }): JSX.Element {
  // The upload is changed in place: the number says when.
  void uploadRevision.value;
  const language = locale();
  const fraction = upload.file.size ? upload.sent / upload.file.size : 0;
  let words: string;
  if (upload.state === "failed") words = upload.reason;
  else if (upload.state === "done") words = t("upload.stored");
  else if (upload.state === "sending") words = fraction >= 1 ? t("upload.checking") : formatPercent(fraction, language);
  else words = upload.tries > 0 ? t("upload.again") : t("upload.waiting");
  return (
    <li class={`upload upload-${upload.state}`} data-testid="upload-row" data-state={upload.state}>
      <div class="grow min0">
        <div class="upload-name" title={upload.name}>{upload.name}</div>
        <div class="upload-words">
          {words}
          {upload.state !== "failed" && <span class="muted"> · {formatBytes(upload.file.size, language)}</span>}
        </div>
        {upload.state === "sending" && <Bar fraction={fraction} label={upload.name} />}
      </div>
      {upload.state === "failed" && upload.canRetry && (
        <button class="icon-btn" type="button" title={t("action.retry")} aria-label={t("action.retry")} onClick={() => retryUpload(upload)}>
          <Icon name="retry" size={18} />
        </button>
      )}
      {upload.state === "done" ? (
        <span class="upload-ok"><Icon name="check" size={18} /></span>
      ) : (
        <button
          class="icon-btn" type="button" title={t("upload.remove")} aria-label={t("upload.remove")}
          onClick={() => removeUpload(upload)}
        >
          <Icon name="close" size={18} />
        </button>
      )}
    </li>
  );
}

/** Failures first, then what is moving, then what waits, then what is stored: what needs a person is on top. */
function ordered(list: readonly Upload[]): Upload[] {
  const rank = { failed: 0, sending: 1, waiting: 2, done: 3 } as const;
  const rows: Upload[] = [];
  for (const state of ["failed", "sending", "waiting", "done"] as const)
    for (const upload of list) {
      if (rows.length >= MAX_ROWS) return rows;
      if (rank[upload.state] === rank[state]) rows.push(upload);
    }
  return rows;
}

export function UploadTray(): JSX.Element | null {
  void uploadRevision.value;
  const [, tick] = useState(0);
  const sum = totals();
  const busy = sum.unfinished > 0;
  useEffect(() => {
    if (!busy) return undefined;
    const timer = setInterval(() => tick((n) => n + 1), 1_000);
    return () => clearInterval(timer);
  }, [busy]);
  const finished = !busy && sum.count > 0 && sum.failed === 0;
  useEffect(() => {
    if (!finished) return undefined;
    const timer = setTimeout(clearFinished, LEAVE_MS);
    return () => clearTimeout(timer);
  }, [finished]);
  if (sum.count === 0) return null;
  const language = locale();
  const fraction = sum.bytes ? sum.sent / sum.bytes : 0;
  const title = busy
    ? paused.value
      ? t("upload.paused", { done: sum.done, n: sum.count })
      : t("upload.progress", { done: sum.done, n: sum.count })
    : sum.failed
      ? t("upload.someFailed", { n: sum.failed })
      : t("upload.allStored", { n: sum.done });
  // Away from the gallery only the head is shown, so that it hides nothing of what is looked at there.
  const atHome = route.value.name === "project" || route.value.name === "projects";
  const unfolded = trayOpen.value && atHome;
  const rows = unfolded ? ordered(uploads()) : [];
  const left = sum.speed > 0 ? (sum.bytes - sum.sent) / sum.speed : 0;
  return (
    <section class={route.value.name === "viewer" ? "tray tray-viewer" : "tray"} aria-label={t("upload.tray")} data-testid="upload-tray">
      <header class="tray-head">
        <div class="grow min0">
          <b role="status">{title}</b>
          {busy && (
            <div class="muted small tray-speed">
              {t("upload.bytes", { sent: formatBytes(sum.sent, language), total: formatBytes(sum.bytes, language) })}
              {sum.speed > 0 && !paused.value &&
                ` · ${formatBytes(sum.speed, language)}/s · ${t("upload.left", { time: formatDuration(left, language) })}`}
            </div>
          )}
        </div>
        {busy && (
          <button
            class="icon-btn" type="button" aria-label={t(paused.value ? "upload.resume" : "upload.pause")}
            title={t(paused.value ? "upload.resume" : "upload.pause")} onClick={() => setPaused(!paused.value)}
          >
            <Icon name={paused.value ? "play" : "pause"} size={18} />
          </button>
        )}
        {atHome && <button
          class="icon-btn" type="button" aria-expanded={trayOpen.value} aria-label={t("upload.details")} title={t("upload.details")}
          onClick={() => (trayOpen.value = !trayOpen.value)}
        >
          <Icon name={trayOpen.value ? "down" : "up"} size={18} />
        </button>}
        {!busy && (
          <button class="icon-btn" type="button" aria-label={t("action.close")} title={t("action.close")} onClick={clearFinished}>
            <Icon name="close" size={18} />
          </button>
        )}
      </header>
      {busy && <Bar fraction={fraction} label={title} />}
      {unfolded && (
        <ul class="tray-list" tabIndex={0} aria-label={t("upload.details")}>
          {rows.map((upload) => <Row key={upload.id} upload={upload} />)}
          {sum.count > rows.length && <li class="upload muted">{t("upload.moreFiles", { n: sum.count - rows.length })}</li>}
        </ul>
      )}
      {sum.failed > 1 && unfolded && (
        <footer class="tray-foot">
          <button class="btn btn-sm" type="button" onClick={retryAllFailed}>{t("upload.retryAll")}</button>
        </footer>
      )}
    </section>
  );
}
