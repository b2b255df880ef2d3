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
import { flatScores, type Score } from "./scores";

function Scores({ scores }: { scores: readonly Score[] }): JSX.Element {
  const language = locale();
  const sets = [...new Set(scores.map((score) => score.set))];
  return (
    <table class="scores">
      <caption>{t("models.scores")}</caption>
      <tbody>
        {sets.map((set) => (
          <tr key={set}>
            <th scope="row">{set || t("models.overall")}</th>
            <td>
              {scores.filter((score) => score.set === set).map((score) => (
                <span key={score.name} class="score">
                  <span class="muted">{score.name}</span> <b>{formatNumber(score.value, language, 3)}</b>
                </span>
              ))}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Card({ model }: { model: Model }): JSX.Element {
  const scores = flatScores(model.scores);
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
      {scores.length > 0 && <Scores scores={scores} />}
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
