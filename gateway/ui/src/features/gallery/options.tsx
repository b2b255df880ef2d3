// What else can be chosen for a run: sizes, turned views, and the plane of the file, as far as the images and the model
// have a choice. An empty field means: as the model says, the first page, all channels.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Augment, Image, JobOptions, Model } from "../../api/types";
import { t, type Key } from "../../i18n";

const AREA_MAX = 1e12;

/** What each of the images has, so that a choice fits all of them. */
export interface Reach {
  pages: number;
  channels: number;
  slices: number;
  times: number;
}

export function reachOf(images: readonly Image[]): Reach {
  const least = (of: (image: Image) => number): number => images.reduce((n, image) => Math.min(n, of(image)), images.length ? Infinity : 1);
  const reach = {
    pages: least((image) => image.pages),
    channels: least((image) => image.planes?.channels ?? image.channels),
    slices: least((image) => image.planes?.slices ?? 1),
    times: least((image) => image.planes?.times ?? 1),
  };
  // A plain stack of pages: the page is chosen. Else the file says what its pages are.
  const plain = images.every(({ pages, planes }) => !planes || (planes.times === 1 && planes.slices === pages));
  return plain ? { ...reach, slices: 1, times: 1 } : { ...reach, pages: 1 };
}

/** "1, 0.5" as weights; null when it is not one number for each channel. */
export function parseMix(text: string, channels: number): number[] | null {
  const parts = text.split(/[;\s]+|,\s*/).filter((part) => part !== "");
  const weights = parts.map(Number);
  const fine = weights.length >= 1 && weights.length <= Math.min(16, channels) && weights.every(Number.isFinite);
  return fine && weights.some((weight) => weight !== 0) ? weights : null;
}

/** The choice with one field changed; undefined takes it out. */
function withField<K extends keyof JobOptions>(options: JobOptions, key: K, value: JobOptions[K] | undefined): JobOptions {
  const { [key]: _, ...rest } = options;
  return value === undefined ? rest : { ...rest, [key]: value };
}

/** The choice without what the model does not take. */
export function fitOptions(options: JobOptions, model: Model | undefined): JobOptions {
  const { augment } = options;
  return augment && model?.options && !model.options.augments.includes(augment) ? withField(options, "augment", undefined) : options;
}

interface WholeProps {
  label: string;
  value: number | undefined;
  least: number;
  most: number;
  own: string;
  testId: string;
  onChange: (value: number | undefined) => void;
}

function Whole({ label, value, least, most, own, testId, onChange }: WholeProps): JSX.Element {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        class="input" type="number" inputMode="numeric" step={1} min={least} max={most} placeholder={own} data-testid={testId}
        defaultValue={value === undefined ? "" : String(value)}
        onInput={(event) => {
          const number = event.currentTarget.valueAsNumber;
          onChange(Number.isInteger(number) ? number : undefined);
        }}
      />
    </label>
  );
}

function ChannelField({ channels, value, onChange }: { channels: number; value: JobOptions; onChange: (value: JobOptions) => void }): JSX.Element {
  const [mixing, setMixing] = useState(value.mix !== undefined);
  const plain = withField(withField(value, "mix", undefined), "channel", undefined);
  return (
    <>
      <label class="field">
        <span>{t("segment.channel")}</span>
        <select
          class="input" value={mixing ? "mix" : String(value.channel ?? "")} data-testid="option-channel"
          onChange={(event) => {
            const chosen = event.currentTarget.value;
            setMixing(chosen === "mix");
            onChange(/^\d+$/.test(chosen) ? { ...plain, channel: Number(chosen) } : plain);
          }}
        >
          <option value="">{t("segment.channelAll")}</option>
          {Array.from({ length: Math.min(channels, 64) }, (_, i) => <option key={i} value={String(i + 1)}>{i + 1}</option>)}
          <option value="mix">{t("segment.channelMix")}</option>
        </select>
      </label>
      {mixing && (
        <label class="field">
          <span>{t("segment.mix")}</span>
          <input
            class="input" type="text" required placeholder="1, 0.5" data-testid="option-mix" defaultValue={value.mix?.join(", ") ?? ""}
            onInput={(event) => {
              const weights = parseMix(event.currentTarget.value, channels);
              event.currentTarget.setCustomValidity(weights ? "" : t("segment.mixWrong"));
              onChange(weights ? { ...plain, mix: weights } : plain);
            }}
          />
          <small class="hint">{t("segment.mixHint", { n: channels })}</small>
        </label>
      )}
    </>
  );
}

const augmentWords: Readonly<Record<Augment, Key>> = {
  none: "segment.augmentNone", flips: "segment.augmentFlips", rotations: "segment.augmentRotations",
};

interface Props {
  value: JobOptions;
  model: Model | undefined;
  reach: Reach;
  onChange: (value: JobOptions) => void;
}

export function OptionsPanel({ value, model, reach, onChange }: Props): JSX.Element {
  const set = <K extends keyof JobOptions>(key: K) => (next: JobOptions[K] | undefined): void => onChange(withField(value, key, next));
  const own = model?.options;
  const planes = [
    { key: "page", label: t("segment.page"), most: reach.pages },
    { key: "z", label: t("segment.slice"), most: reach.slices },
    { key: "time", label: t("segment.time"), most: reach.times },
  ] as const;
  const shown = planes.filter(({ most }) => most > 1);
  return (
    <details class="more-options">
      <summary data-testid="segment-options">{t("segment.options")}</summary>
      <div class="option-grid">
        {shown.map(({ key, label, most }) => (
          <Whole key={key} label={`${label} (1–${most})`} value={value[key]} least={1} most={most} own="1" testId={`option-${key}`} onChange={set(key)} />
        ))}
        {reach.channels > 1 && <ChannelField channels={reach.channels} value={value} onChange={onChange} />}
        <Whole label={t("segment.minArea")} value={value.minArea} least={0} most={AREA_MAX} own={String(own?.minArea ?? "")} testId="option-minArea" onChange={set("minArea")} />
        <Whole label={t("segment.maxArea")} value={value.maxArea} least={0} most={AREA_MAX} own={t("segment.noLimit")} testId="option-maxArea" onChange={set("maxArea")} />
        <Whole label={t("segment.maxHole")} value={value.maxHoleArea} least={0} most={AREA_MAX} own={String(own?.maxHoleArea ?? "")} testId="option-maxHoleArea" onChange={set("maxHoleArea")} />
        {own && own.augments.length > 1 && (
          <label class="field">
            <span>{t("segment.augment")}</span>
            <select
              class="input" value={value.augment ?? own.augment} data-testid="option-augment"
              onChange={(event) => set("augment")(own.augments.find((how) => how === event.currentTarget.value && how !== own.augment))}
            >
              {own.augments.map((how) => <option key={how} value={how}>{t(augmentWords[how])}</option>)}
            </select>
          </label>
        )}
      </div>
      {shown.length > 0 && <p class="hint">{t("segment.planeHint")}</p>}
    </details>
  );
}

/** What held for a result, in words, one for each setting that says something. */
export function optionWords(options: JobOptions): { label: string; value: string }[] {
  const words: { label: string; value: string }[] = [];
  const add = (key: Key, value: string | number | undefined): void => {
    if (value !== undefined) words.push({ label: t(key), value: String(value) });
  };
  add("segment.minArea", options.minArea);
  add("segment.maxArea", options.maxArea || undefined);
  add("segment.maxHole", options.maxHoleArea);
  add("segment.augment", options.augment && options.augment !== "none" ? t(augmentWords[options.augment]) : undefined);
  add("segment.page", options.page);
  add("segment.channel", options.channel);
  add("segment.mix", options.mix?.join(", "));
  add("segment.slice", options.z);
  add("segment.time", options.time);
  return words;
}
