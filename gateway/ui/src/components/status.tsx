// The state of an image in words, with a shape of its own for each state, so that colour is never the only sign.
import type { JSX } from "preact";
import type { Image, Job } from "../api/types";
import { hasMessage, locale, t, tOrdinal, type Key } from "../i18n";
import { formatPercent } from "../i18n/format";
import { imageState } from "../store/jobs";
import { Icon, type IconName } from "./icon";

export function stageWords(stage: string): string {
  const key = `stage.${stage}`;
  return hasMessage(key) ? t(key as Key) : t("status.running");
}

export function jobErrorWords(job: Job): string {
  const key = `job.error.${job.error?.code ?? ""}`;
  if (hasMessage(key)) return t(key as Key);
  return job.error?.message || t("job.error.unknown");
}

export function statusWords(image: Image): string {
  const { job } = image;
  switch (job?.state) {
    case undefined:
      return t("status.none");
    case "queued":
      return job.position === null ? t("status.waiting") : tOrdinal("status.waitingNth", { n: job.position + 1 });
    case "delayed":
      return t("status.delayed");
    case "active":
      return t("status.runningStage", { stage: stageWords(job.stage), percent: formatPercent(job.progress, locale()) });
    case "completed":
      return t("status.objects", { n: image.objectCount ?? job.objectCount ?? 0 });
    case "failed":
      return t("status.failed", { reason: jobErrorWords(job) });
    case "cancelled":
      return t("status.cancelled");
  }
}

const icons: Readonly<Record<string, IconName>> = {
  none: "dot", queued: "clock", delayed: "retry", active: "sparkle", completed: "check", failed: "alert", cancelled: "stop",
};

export function StatusChip({ image, short = false }: { image: Image; short?: boolean }): JSX.Element {
  const state = imageState(image);
  const words = statusWords(image);
  return (
    <span class={`chip chip-${state}`} data-testid="image-status" data-state={state} title={words}>
      <Icon name={icons[state] ?? "dot"} size={14} />
      <span class="chip-text">{short && state === "failed" ? t("filter.failed") : words}</span>
    </span>
  );
}
