// One image, large: picture, outlines, objects.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../../api/endpoints";
import { Problem } from "../../api/problem";
import type { SegmentRequest } from "../../api/types";
import { Bar, Empty, Menu, ProblemPanel } from "../../components/basics";
import { Dialog } from "../../components/dialog";
import { Icon, type IconName } from "../../components/icon";
import { StatusChip, statusWords } from "../../components/status";
import { tellProblem } from "../../components/toasts";
import { locale, t, type Key } from "../../i18n";
import { formatNumber } from "../../i18n/format";
import { Link, navigate } from "../../router";
import { imageState, isUnfinished } from "../../store/jobs";
import { readModels, modelList } from "../../store/models";
import { openProject, type ProjectStore } from "../../store/project";
import { stored } from "../../store/settings";
import { SegmentDialog } from "../gallery/segment";
import { setCrumbs } from "../shell/crumbs";
import { saveCsv, saveGeoJson } from "./download";
import { Filmstrip } from "./filmstrip";
import { Inspector } from "./inspector";
import { display, ResultState, setDisplay } from "./state";
import { Stage, type StageControls } from "./stage";

const inspectorOpen = stored("sg.inspector", true, (value): value is boolean => typeof value === "boolean");

const keyHelp: readonly { keys: string; label: Key }[] = [
  { keys: "← →", label: "keys.images" },
  { keys: "+ −", label: "keys.zoom" },
  { keys: "0", label: "keys.fit" },
  { keys: "1", label: "keys.actual" },
  { keys: "⇧ ← ↑ → ↓", label: "keys.pan" },
  { keys: "O", label: "keys.outlines" },
  { keys: "H", label: "keys.holes" },
  { keys: "Tab", label: "keys.next" },
  { keys: "I", label: "keys.inspector" },
  { keys: "Esc", label: "keys.escape" },
  { keys: "?", label: "keys.help" },
];

function Tool({ icon, label, keys, pressed, run }: {
  icon: IconName; label: string; keys: string; pressed?: boolean; run: () => void;
}): JSX.Element {
  return (
    <button class="tool" type="button" aria-label={label} title={`${label} (${keys})`} aria-pressed={pressed} onClick={run}>
      <Icon name={icon} />
    </button>
  );
}

function KeysDialog({ onClose }: { onClose: () => void }): JSX.Element {
  return (
    <Dialog title={t("keys.title")} onClose={onClose}>
      <dl class="keys-list" data-testid="keys-help">
        {keyHelp.map(({ keys, label }) => (
          <div key={keys}>
            <dt>{keys.split(" ").map((key) => <kbd key={key}>{key}</kbd>)}</dt>
            <dd>{t(label)}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}

/** The image itself, when the gallery's list has not reached it yet. */
function useImage(store: ProjectStore, id: string): { problem: unknown } {
  const [problem, setProblem] = useState<unknown>(null);
  useEffect(() => {
    setProblem(null);
    if (store.image(id)) return undefined;
    let gone = false;
    api.images.get(id).then(
      (image) => {
        if (!gone) store.put([image]);
      },
      (error: unknown) => {
        if (!gone) setProblem(error);
      },
    );
    return () => {
      gone = true;
    };
  }, [store, id]);
  return { problem };
}

export function ViewerScreen({ projectId, imageId }: { projectId: string; imageId: string }): JSX.Element {
  const store = openProject(projectId);
  const { problem } = useImage(store, imageId);
  const result = useMemo(() => new ResultState(imageId), [imageId]);
  const controls = useRef<StageControls | null>(null);
  const [help, setHelp] = useState(false);
  const [asking, setAsking] = useState(false);

  const order = store.order.value;
  const image = store.image(imageId)?.value;
  const project = store.project.value;
  const language = locale();
  const at = order.indexOf(imageId);
  const previous = at > 0 ? order[at - 1] : undefined;
  const next = at >= 0 ? order[at + 1] : undefined;

  useEffect(() => () => result.dispose(), [result]);
  useEffect(() => {
    if (modelList.peek() === null) void readModels();
  }, []);
  useEffect(() => {
    if (image) result.follow(image);
  }, [image, result]);
  useEffect(
    () => setCrumbs([
      { label: t("nav.projects"), href: "/projects" },
      { label: project?.title ?? "…", href: `/projects/${projectId}` },
      { label: image?.name ?? "…" },
    ]),
    [project?.title, image?.name, language],
  );

  const go = (id: string | undefined): void => {
    if (id) navigate(`/projects/${projectId}/images/${id}`, { replace: true });
  };

  const stepObject = (by: number): void => {
    const list = result.list.peek();
    if (list.length === 0) return;
    const now = list.indexOf(result.selected.peek());
    const object = list[(now < 0 && by < 0 ? list.length - 1 : now + by + list.length) % list.length];
    if (object === undefined) return;
    result.selected.value = object;
    controls.current?.reveal(object);
  };

  useEffect(() => {
    const actions: Readonly<Record<string, () => void>> = {
      "+": () => controls.current?.zoomBy(1.5),
      "=": () => controls.current?.zoomBy(1.5),
      "-": () => controls.current?.zoomBy(1 / 1.5),
      "0": () => controls.current?.fit(),
      "1": () => controls.current?.actualSize(),
      o: () => setDisplay({ visible: !display.peek().visible }),
      h: () => setDisplay({ holes: !display.peek().holes }),
      i: () => (inspectorOpen.value = !inspectorOpen.peek()),
      "?": () => setHelp(true),
      ArrowLeft: () => go(previous),
      ArrowRight: () => go(next),
    };
    const pans: Readonly<Record<string, [number, number]>> = {
      ArrowLeft: [-80, 0], ArrowRight: [80, 0], ArrowUp: [0, -80], ArrowDown: [0, 80],
    };
    const keys = (event: KeyboardEvent): void => {
      const target = event.target instanceof HTMLElement ? event.target : document.body;
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (target.closest("dialog, select, textarea, .menu-list") || target.matches("input:not([type=checkbox])")) return;
      const pan = event.shiftKey ? pans[event.key] : undefined;
      // Tab walks the objects only from the picture; elsewhere it moves the focus as everywhere.
      const onStage = target === document.body || target.closest(".stage, #content") === target || target.closest(".stage") !== null;
      if (pan) controls.current?.panBy(...pan);
      else if (event.key === "Escape") {
        if (result.selected.peek() >= 0) result.selected.value = -1;
        else navigate(`/projects/${projectId}`);
      } else if (event.key === "Tab" && onStage && result.selected.peek() >= 0) stepObject(event.shiftKey ? -1 : 1);
      else {
        const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
        if (!action) return;
        action();
      }
      event.preventDefault();
    };
    document.addEventListener("keydown", keys);
    return () => document.removeEventListener("keydown", keys);
  }, [previous, next, projectId, result]);

  if (store.gone.value || (problem instanceof Problem && problem.status === 404))
    return (
      <Empty whole icon="search" title={t("viewer.goneTitle")} text={t("viewer.goneText")}>
        <Link class="btn btn-primary" href={store.gone.value ? "/projects" : `/projects/${projectId}`}>{t("missing.back")}</Link>
      </Empty>
    );
  if (!image && problem) return <ProblemPanel problem={problem} retry={() => location.reload()} />;
  if (!image) return <div class="viewer"><div class="stage stage-wait"><div class="spinner" /></div></div>;

  const state = imageState(image);
  const { job } = image;
  const busy = isUnfinished(state);

  const segment = async (options: Required<SegmentRequest>): Promise<void> => {
    setAsking(false);
    try {
      await api.images.segment(imageId, options);
      store.put([await api.images.get(imageId)]);
    } catch (error) {
      tellProblem(error);
    }
  };
  const cancel = async (): Promise<void> => {
    try {
      if (job) store.setJob(await api.segmentation.cancel(job.id));
    } catch (error) {
      tellProblem(error);
    }
  };

  return (
    <div class={inspectorOpen.value ? "viewer" : "viewer no-inspector"}>
      <div class="viewer-bar">
        <Link class="icon-btn" href={`/projects/${projectId}`} aria-label={t("viewer.back")} title={t("viewer.back")}>
          <Icon name="left" />
        </Link>
        <h1 class="viewer-title ellipsis" title={image.name}>{image.name}</h1>
        <StatusChip image={image} />
        <span class="viewer-gap" />
        {busy ? (
          <button class="btn btn-sm" type="button" onClick={() => void cancel()}>
            <Icon name="stop" size={16} /><span class="wide-only">{t("action.cancel")}</span>
          </button>
        ) : (
          <button class="btn btn-sm" type="button" data-testid="segment-again" onClick={() => setAsking(true)}>
            <Icon name="sparkle" size={16} /><span class="wide-only">{t(image.objectCount === null ? "viewer.segment" : "viewer.segmentAgain")}</span>
          </button>
        )}
        <Menu
          class="btn btn-sm" label={t("viewer.download")} testId="download"
          items={[
            ...(result.outlines.value
              ? [
                  ...(result.measured.value >= 1 ? [{ label: t("viewer.saveCsv"), icon: "download" as const, run: () => saveCsv(image, result) }] : []),
                  { label: t("viewer.saveGeoJson"), icon: "download" as const, run: () => void saveGeoJson(image).catch(tellProblem) },
                ]
              : []),
            { label: t("viewer.saveOriginal"), icon: "image", run: () => window.open(api.images.originalUrl(image.id), "_blank", "noopener") },
          ]}
        >
          <Icon name="download" size={16} /><span class="wide-only">{t("viewer.download")}</span>
        </Menu>
        <span class="pager">
          <button class="icon-btn" type="button" disabled={!previous} aria-label={t("viewer.previous")} title={`${t("viewer.previous")} (←)`} onClick={() => go(previous)}>
            <Icon name="left" />
          </button>
          <span class="pager-text">{at >= 0 ? `${formatNumber(at + 1, language)} / ${formatNumber(order.length, language)}` : ""}</span>
          <button class="icon-btn" type="button" disabled={!next} aria-label={t("viewer.next")} title={`${t("viewer.next")} (→)`} onClick={() => go(next)}>
            <Icon name="right" />
          </button>
        </span>
      </div>
      <div class="tools" role="toolbar" aria-label={t("viewer.tools")} aria-orientation="vertical">
        <Tool icon="fit" label={t("keys.fit")} keys="0" run={() => controls.current?.fit()} />
        <Tool icon="plus" label={t("viewer.zoomIn")} keys="+" run={() => controls.current?.zoomBy(1.5)} />
        <Tool icon="minus" label={t("viewer.zoomOut")} keys="−" run={() => controls.current?.zoomBy(1 / 1.5)} />
        <button class="tool tool-text" type="button" title={`${t("keys.actual")} (1)`} aria-label={`1:1 ${t("keys.actual")}`} onClick={() => controls.current?.actualSize()}>
          1:1
        </button>
        <hr />
        <Tool icon={display.value.visible ? "eye" : "eyeOff"} label={t("viewer.showOutlines")} keys="O" pressed={display.value.visible}
          run={() => setDisplay({ visible: !display.value.visible })} />
        <Tool icon="hole" label={t("viewer.showHoles")} keys="H" pressed={display.value.holes}
          run={() => setDisplay({ holes: !display.value.holes })} />
        <span class="grow" />
        <Tool icon="panel" label={t("viewer.inspector")} keys="I" pressed={inspectorOpen.value}
          run={() => (inspectorOpen.value = !inspectorOpen.value)} />
        <Tool icon="help" label={t("keys.title")} keys="?" run={() => setHelp(true)} />
      </div>
      <div class="stage-area">
        <Stage image={image} result={result} onControls={(next) => (controls.current = next)} />
        {busy && job && (
          <div class="stage-status" role="status">
            <span>{statusWords(image)}</span>
            {result.preview.outlines.value && (
              <span data-testid="preview-count">{t("viewer.soFar", { n: result.preview.outlines.value.count })}</span>
            )}
            {state === "active" && <Bar fraction={job.progress} label={statusWords(image)} />}
          </div>
        )}
      </div>
      {inspectorOpen.value && <Inspector image={image} result={result} onReveal={(object) => controls.current?.reveal(object)} />}
      <Filmstrip store={store} currentId={imageId} />
      {help && <KeysDialog onClose={() => setHelp(false)} />}
      {asking && <SegmentDialog project={project} count={1} images={[image]} onClose={() => setAsking(false)} onRun={(options) => void segment(options)} />}
    </div>
  );
}
