// The models: what each is for, how good it was on images it had never seen.
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { Model } from "../../api/types";
import { Empty, ProblemPanel, Skeleton } from "../../components/basics";
import { Icon } from "../../components/icon";
import { locale, t } from "../../i18n";
import { formatNumber } from "../../i18n/format";
import { modelList, modelProblem, readModels } from "../../store/models";
import { setCrumbs } from "../shell/crumbs";
import { scoreTable, type ScoreTable } from "./scores";

function Scores({ table }: { table: ScoreTable }): JSX.Element {
  const language = locale();
  return (
    <table class="scores">
      <caption>{t("models.scores")} <small>{t("models.baseline")}</small></caption>
      <thead>
        <tr>
          <th scope="col">{t("models.set")}</th>
          {table.metrics.map((name) => <th key={name} scope="col" class="num">{name}</th>)}
        </tr>
      </thead>
      <tbody>
        {table.rows.map((row) => (
          <tr key={row.set}>
            <th scope="row">
              {row.set.replaceAll("_", " ") || t("models.overall")}
              {row.images !== null && <small>{t("projects.images", { n: row.images })}</small>}
            </th>
            {table.metrics.map((name) => {
              const score = row.values.get(name);
              return (
                <td key={name} class="num">
                  {score ? <b>{formatNumber(score.value, language, 2, true)}</b> : "–"}
                  {score && score.baseline !== null && <small>{formatNumber(score.baseline, language, 2, true)}</small>}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Card({ model }: { model: Model }): JSX.Element {
  const table = scoreTable(model.scores);
  const here = model.available !== false;
  return (
    <article class="panel model-card" data-testid="model-card">
      <header class="spread">
        <h2>{model.title || model.name}</h2>
        <span class={here ? "chip chip-completed" : "chip chip-cancelled"}>
          <Icon name={here ? "check" : "stop"} size={14} />
          <span class="chip-text">{t(here ? "models.available" : "models.unavailable")}</span>
        </span>
      </header>
      <p>{model.description}</p>
      {table.rows.length > 0 && <Scores table={table} />}
      <dl class="facts">
        <dt>{t("models.name")}</dt>
        <dd><code>{model.name}</code></dd>
        <dt>{t("models.version")}</dt>
        <dd>{model.version}</dd>
        <dt>{t("segment.threshold")}</dt>
        <dd>{formatNumber(model.threshold, locale(), 2)}</dd>
        {model.sha256 && (
          <>
            <dt>SHA-256</dt>
            <dd><code title={model.sha256}>{model.sha256.slice(0, 12)}…</code></dd>
          </>
        )}
      </dl>
    </article>
  );
}

export function ModelsScreen(): JSX.Element {
  const language = locale();
  useEffect(() => setCrumbs([{ label: t("nav.models") }]), [language]);
  useEffect(() => void readModels(), []);
  const list = modelList.value;
  let body: JSX.Element;
  if (list === null && modelProblem.value) body = <ProblemPanel problem={modelProblem.value} retry={() => void readModels()} />;
  else if (list === null) body = <div class="model-grid"><Skeleton class="model-skeleton" /><Skeleton class="model-skeleton" /></div>;
  else if (list.length === 0) body = <Empty icon="models" title={t("models.noneTitle")} text={t("models.none")} />;
  else body = <div class="model-grid">{list.map((model) => <Card key={model.name} model={model} />)}</div>;
  return (
    <div class="page">
      <div class="page-head"><h1>{t("nav.models")}</h1></div>
      <p class="lead">{t("models.lead")}</p>
      {body}
    </div>
  );
}
