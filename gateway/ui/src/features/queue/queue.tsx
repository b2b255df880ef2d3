// What runs where, what waits, and who works. Numbers have fixed places: they change, the page does not move.
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as api from "../../api/endpoints";
import type { Job, QueueStatus } from "../../api/types";
import { Bar, Empty, ProblemPanel, Skeleton } from "../../components/basics";
import { Icon } from "../../components/icon";
import { jobErrorWords, stageWords } from "../../components/status";
import { tellProblem } from "../../components/toasts";
import { locale, t, tOrdinal } from "../../i18n";
import { formatAgo, formatDuration, formatNumber, formatPercent } from "../../i18n/format";
import { connection, listenQueue } from "../../live/socket";
import { Link } from "../../router";
import { isUnfinished } from "../../store/jobs";
import { readPlaces } from "../../store/places";
import { modelTitle, readModels } from "../../store/models";
import { setCrumbs } from "../shell/crumbs";

const status = signal<QueueStatus | null>(null);
const jobs = signal<readonly Job[] | null>(null);
const failed = signal<readonly Job[]>([]);
const problem = signal<unknown>(null);
const POLL_MS = 2_500;
const SHOWN = 100;
const PLACES = 10;

async function read(withStatus: boolean): Promise<void> {
  try {
    const [unfinished, broken] = await Promise.all([
      api.segmentation.jobs("unfinished", SHOWN), api.segmentation.jobs("failed", 20),
    ]);
    const places = await readPlaces(unfinished.items.filter((job) => job.state === "queued"), PLACES);
    const known = new Map(places.map((job) => [job.id, job]));
    jobs.value = unfinished.items.map((job) => known.get(job.id) ?? job).filter((job) => isUnfinished(job.state));
    failed.value = broken.items;
    if (withStatus) status.value = await api.segmentation.queue();
    problem.value = null;
  } catch (error) {
    problem.value = error;
  }
}

function Figure({ label, value, note }: { label: string; value: string; note?: string }): JSX.Element {
  return (
    <div class="figure">
      <div class="figure-value">{value}</div>
      <div class="figure-label">{label}</div>
      <div class="figure-note">{note ?? " "}</div>
    </div>
  );
}

function priorityWords(priority: number): string {
  return t(priority >= 8 ? "segment.soon" : priority >= 4 ? "segment.normal" : "segment.later");
}

/** What runs first, then what waits in the order in which it will run, then the rest. */
export function inOrder(list: readonly Job[]): Job[] {
  const rank = (job: Job): number => (job.state === "active" ? 0 : job.state === "queued" ? 1 : 2);
  return [...list].sort((a, b) => {
    if (rank(a) !== rank(b)) return rank(a) - rank(b);
    if (rank(a) === 2) return a.createdAt < b.createdAt ? 1 : -1;
    if (a.position !== null && b.position !== null && a.position !== b.position) return a.position - b.position;
    return b.priority - a.priority || (a.createdAt < b.createdAt ? -1 : 1);
  });
}

function JobRow({ job }: { job: Job }): JSX.Element {
  const language = locale();
  const [busy, setBusy] = useState(false);
  const act = async (run: () => Promise<unknown>): Promise<void> => {
    setBusy(true);
    try {
      await run();
      await read(false);
    } catch (error) {
      tellProblem(error);
    } finally {
      setBusy(false);
    }
  };
  let words: string;
  if (job.state === "active") words = t("status.runningStage", { stage: stageWords(job.stage), percent: formatPercent(job.progress, language) });
  else if (job.state === "failed") words = jobErrorWords(job);
  else if (job.state === "delayed") words = t("status.delayed");
  else words = job.position === null ? t("status.waiting") : tOrdinal("status.waitingNth", { n: job.position + 1 });
  return (
    <tr data-testid="queue-job" data-state={job.state}>
      <td class="job-image">
        <img src={api.images.thumbnailUrl(job.imageId)} alt="" width={40} height={30} loading="lazy" />
        <Link href={`/projects/${job.projectId}/images/${job.imageId}`}>{job.imageName ?? t("queue.image")}</Link>
      </td>
      <td>
        <div class={`job-words job-${job.state}`}>{words}</div>
        {job.state === "active" && <Bar fraction={job.progress} label={words} />}
      </td>
      <td class="optional">{modelTitle(job.model)}</td>
      <td class="optional">{priorityWords(job.priority)}</td>
      <td class="optional">{formatAgo(new Date(job.createdAt), new Date(), language)}</td>
      <td class="job-actions">
        {job.state === "failed" ? (
          <button class="btn btn-sm" type="button" disabled={busy} onClick={() => void act(() => api.segmentation.retry(job.id))}>
            <Icon name="retry" size={16} />{t("action.retry")}
          </button>
        ) : (
          <button class="btn btn-sm" type="button" disabled={busy} onClick={() => void act(() => api.segmentation.cancel(job.id))}>
            <Icon name="stop" size={16} />{t("action.cancel")}
          </button>
        )}
      </td>
    </tr>
  );
}

function JobTable({ list, label }: { list: readonly Job[]; label: string }): JSX.Element {
  return (
    <div class="table-wrap">
      <table class="table" aria-label={label}>
        <thead>
          <tr>
            <th scope="col">{t("queue.image")}</th>
            <th scope="col" class="col-state">{t("queue.state")}</th>
            <th scope="col" class="optional">{t("segment.model")}</th>
            <th scope="col" class="optional">{t("segment.priority")}</th>
            <th scope="col" class="optional">{t("queue.since")}</th>
            <th scope="col"><span class="sr-only">{t("queue.actions")}</span></th>
          </tr>
        </thead>
        <tbody>{inOrder(list).map((job) => <JobRow key={job.id} job={job} />)}</tbody>
      </table>
    </div>
  );
}

function Breaker({ now }: { now: QueueStatus }): JSX.Element | null {
  const open = now.breaker.filter((one) => one.state !== "closed");
  if (open.length === 0) return null;
  return (
    <>
      {open.map((one) => (
        <div key={one.model} class="notice notice-warn" role="status" data-testid="breaker">
          <Icon name="alert" />
          <span>{t(one.state === "open" ? "queue.breakerOpen" : "queue.breakerHalf", { model: modelTitle(one.model) })}</span>
        </div>
      ))}
    </>
  );
}

function Workers({ now }: { now: QueueStatus }): JSX.Element {
  if (now.workers.length === 0)
    return <div class="notice notice-warn"><Icon name="worker" /><span>{t("queue.noWorkers")}</span></div>;
  return (
    <ul class="workers">
      {now.workers.map((worker) => (
        <li key={worker.id} class="worker" data-testid="worker">
          <Icon name="worker" size={24} />
          <div class="grow min0">
            <b class="ellipsis">{worker.host}</b>
            <div class="muted small">{worker.device.toUpperCase()} · {worker.models.map(modelTitle).join(", ")}</div>
          </div>
          <div class="slots" role="img" aria-label={t("queue.slots", { active: worker.active, n: worker.slots })}
            title={t("queue.slots", { active: worker.active, n: worker.slots })}>
            {Array.from({ length: Math.min(worker.slots, 16) }, (_, i) => <i key={i} class={i < worker.active ? "on" : ""} />)}
          </div>
        </li>
      ))}
    </ul>
  );
}

export function QueueScreen(): JSX.Element {
  const language = locale();
  useEffect(() => setCrumbs([{ label: t("nav.queue") }]), [language]);
  useEffect(() => {
    void readModels();
    void read(true);
    const stop = listenQueue((next) => (status.value = next));
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void read(connection.peek() !== "live");
    }, POLL_MS);
    return () => {
      stop();
      clearInterval(timer);
    };
  }, []);
  const now = status.value;
  const list = jobs.value;
  if (now === null && problem.value) return <ProblemPanel problem={problem.value} retry={() => void read(true)} />;
  const number = (value: number | undefined): string => (value === undefined ? "–" : formatNumber(value, language));
  return (
    <div class="page" data-testid="queue-panel">
      <div class="page-head"><h1>{t("nav.queue")}</h1></div>
      {now && <Breaker now={now} />}
      <section class="figures" aria-label={t("queue.numbers")}>
        <Figure
          label={t("queue.waiting")} value={number(now?.waiting)}
          note={now && now.waiting > 0 ? t("queue.oldest", { time: formatDuration(now.oldestWaitingSeconds, language) }) : " "}
        />
        <Figure label={t("queue.running")} value={number(now?.active)} />
        <Figure label={t("queue.delayed")} value={number(now?.delayed)} />
        <Figure label={t("queue.completed")} value={number(now?.completed)} />
        <Figure label={t("queue.failed")} value={number(now?.failed)} />
      </section>
      <section class="section">
        <h2>{t("queue.workers")}</h2>
        {now ? <Workers now={now} /> : <Skeleton class="line-skeleton" />}
      </section>
      <section class="section">
        <h2>{t("queue.mine")}</h2>
        {list === null ? (
          <Skeleton class="line-skeleton" />
        ) : list.length === 0 ? (
          <Empty icon="check" title={t("queue.empty")} text={t("queue.emptyText")} />
        ) : (
          <JobTable list={list} label={t("queue.mine")} />
        )}
      </section>
      {failed.value.length > 0 && (
        <section class="section">
          <h2>{t("queue.failedLately")}</h2>
          <JobTable list={failed.value} label={t("queue.failedLately")} />
        </section>
      )}
    </div>
  );
}
