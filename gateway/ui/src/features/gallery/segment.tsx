// How images are segmented: the form used before a run and for the defaults of a project.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Image, Project, SegmentRequest } from "../../api/types";
import { Switch } from "../../components/basics";
import { Dialog } from "../../components/dialog";
import { Icon } from "../../components/icon";
import { locale, t } from "../../i18n";
import { formatNumber } from "../../i18n/format";
import { modelList, readModels } from "../../store/models";
import { fitOptions, OptionsPanel, reachOf, type Reach } from "./options";

interface FormProps {
  value: Required<SegmentRequest>;
  onChange: (value: Required<SegmentRequest>) => void;
  /** What the images have to choose from; null: the form is for the project's defaults. */
  reach: Reach | null;
}

function SegmentForm({ value, onChange, reach }: FormProps): JSX.Element {
  const models = modelList.value;
  const chosen = models?.find((model) => model.name === value.model);
  const language = locale();
  return (
    <>
      <label class="field">
        <span>{t("segment.model")}</span>
        <select
          class="input" value={value.model} data-testid="segment-model"
          onChange={(event) => {
            const model = models?.find((other) => other.name === event.currentTarget.value);
            onChange({
              ...value, model: event.currentTarget.value, threshold: model?.threshold ?? value.threshold,
              options: fitOptions(value.options, model),
            });
          }}
        >
          {(models ?? []).map((model) => (
            <option key={model.name} value={model.name}>
              {model.title}{model.available === false ? ` – ${t("models.unavailable")}` : ""}
            </option>
          ))}
        </select>
        <small class="hint">{chosen?.description ?? ""}</small>
      </label>
      <label class="field">
        <span class="spread">
          {t("segment.threshold")}<output>{formatNumber(value.threshold, language, 2)}</output>
        </span>
        <input
          type="range" min={0.1} max={0.9} step={0.05} value={value.threshold} data-testid="segment-threshold"
          onInput={(event) => onChange({ ...value, threshold: Number(event.currentTarget.value) })}
        />
        <small class="hint spread"><span>{t("segment.more")}</span><span>{t("segment.fewer")}</span></small>
      </label>
      <Switch checked={value.detectHoles} onChange={(detectHoles) => onChange({ ...value, detectHoles })}>
        {t("segment.holes")}
      </Switch>
      {reach && <OptionsPanel value={value.options} model={chosen} reach={reach} onChange={(options) => onChange({ ...value, options })} />}
      {reach && (
        <label class="field">
          <span>{t("segment.priority")}</span>
          <select
            class="input" value={String(value.priority)}
            onChange={(event) => onChange({ ...value, priority: Number(event.currentTarget.value) })}
          >
            <option value="9">{t("segment.soon")}</option>
            <option value="5">{t("segment.normal")}</option>
            <option value="2">{t("segment.later")}</option>
          </select>
        </label>
      )}
    </>
  );
}

function initial(project: Project | null): Required<SegmentRequest> {
  const models = modelList.peek() ?? [];
  const model = models.find((other) => other.name === project?.defaultModel) ?? models[0];
  return {
    model: model?.name ?? "",
    threshold: project?.defaultThreshold ?? model?.threshold ?? 0.5,
    detectHoles: project?.detectHoles ?? true,
    priority: 5,
    options: {},
  };
}

interface DialogProps {
  project: Project | null;
  /** How many images; 0: the form is for the project's defaults. */
  count: number;
  /** Those of them that are known. */
  images?: readonly Image[];
  onClose: () => void;
  onRun: (options: Required<SegmentRequest>) => void;
}

export function SegmentDialog({ project, count, images, onClose, onRun }: DialogProps): JSX.Element {
  const [value, setValue] = useState(() => initial(project));
  const [reach] = useState(() => (count > 0 ? reachOf(images ?? []) : null));
  useEffect(() => {
    if (modelList.peek() === null) void readModels().then(() => setValue((old) => (old.model ? old : initial(project))));
  }, []);
  return (
    <Dialog title={count ? t("segment.title", { n: count }) : t("segment.defaults")} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          onRun(value);
        }}
      >
        <SegmentForm value={value} onChange={setValue} reach={reach} />
        {modelList.value?.length === 0 && (
          <div class="notice notice-warn"><Icon name="alert" /><span>{t("models.none")}</span></div>
        )}
        {count > 0 && <p class="hint">{t("segment.keepsOld")}</p>}
        <footer class="dialog-foot">
          <button class="btn" type="button" onClick={onClose}>{t("action.cancel")}</button>
          <button class="btn btn-primary" type="submit" disabled={!value.model} data-testid="segment-run">
            {count ? t("segment.run", { n: count }) : t("action.save")}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
