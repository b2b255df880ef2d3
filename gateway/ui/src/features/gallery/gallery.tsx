// The images of a project.
import type { JSX } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../../api/endpoints";
import type { SegmentRequest } from "../../api/types";
import { Empty, ProblemPanel, Skeleton } from "../../components/basics";
import { confirmAction } from "../../components/dialog";
import { Icon } from "../../components/icon";
import { tell, tellProblem } from "../../components/toasts";
import { locale, t } from "../../i18n";
import { Link, navigate, search } from "../../router";
import { imageState, isUnfinished } from "../../store/jobs";
import { openProject, type ProjectStore } from "../../store/project";
import { autoSegment } from "../../store/settings";
import { TitleDialog, deleteProject } from "../projects/projects";
import { setCrumbs } from "../shell/crumbs";
import { carriesFiles, filesOfDrop, filesOfList, type FoundFile } from "../upload/files";
import { addFiles, whenStored } from "../upload/uploads";
import { BulkBar, FilterBar, HeadActions } from "./bars";
import { Grid } from "./grid";
import { SegmentDialog } from "./segment";
import { arrange, filters, orders, selectNext, type Filter, type Order } from "./select";

const CANCEL_PARALLEL = 6;

/** Does the same thing to many, a few at a time; tells how many went wrong. */
async function each(ids: readonly string[], run: (id: string) => Promise<unknown>): Promise<unknown[]> {
  const queue = [...ids];
  const problems: unknown[] = [];
  const worker = async (): Promise<void> => {
    for (let id = queue.pop(); id !== undefined; id = queue.pop()) await run(id).catch((error: unknown) => problems.push(error));
  };
  await Promise.all(Array.from({ length: Math.min(CANCEL_PARALLEL, ids.length) }, worker));
  return problems;
}

function chosen<T extends string>(list: readonly T[], value: string | null): T {
  return list.find((one) => one === value) ?? (list[0] as T);
}

function Loading(): JSX.Element {
  return <div class="gallery-scroll"><div class="grid-loading">{[1, 2, 3, 4, 5, 6, 7, 8].map((n) => <Skeleton key={n} class="card-skeleton" />)}</div></div>;
}

type Asked = { kind: "segment"; ids: readonly string[]; all: boolean; onlyMissing: boolean } | { kind: "defaults" } | { kind: "rename" };

export function GalleryScreen({ projectId }: { projectId: string }): JSX.Element {
  const store: ProjectStore = openProject(projectId);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const last = useRef<string | null>(null);
  const [asked, setAsked] = useState<Asked | null>(null);
  const [dropping, setDropping] = useState(false);
  const picker = useRef<HTMLInputElement>(null);
  const folderPicker = useRef<HTMLInputElement>(null);

  const project = store.project.value;
  const order = store.order.value;
  const revision = store.revision.value;
  const counts = store.counts.value;
  const language = locale();
  const filter: Filter = chosen(filters, search.value.get("show"));
  const sort: Order = chosen(orders, search.value.get("sort"));
  const text = search.value.get("find") ?? "";

  useEffect(
    () => setCrumbs([{ label: t("nav.projects"), href: "/projects" }, { label: project?.title ?? "…" }]),
    [project?.title, language],
  );
  useEffect(() => {
    whenStored((image) => {
      if (image.projectId === projectId) store.put([image]);
    });
    return () => whenStored(() => undefined);
  }, [store]);

  const plain = filter === "all" && sort === "newest" && text === "";
  // In plain order only a new or a gone image matters; otherwise any change may move something.
  const ids = useMemo(
    () => (plain ? order : arrange(store.all(), filter, text, sort, language).map((image) => image.id)),
    plain ? [order, plain] : [order, revision, filter, text, sort, language],
  );
  const live = useMemo(() => new Set([...selected].filter((id) => store.image(id))), [selected, order]);

  const select = useCallback(
    (id: string, range: boolean) => {
      setSelected((now) => selectNext(now, ids, id, last.current, range));
      last.current = id;
    },
    [ids],
  );

  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      if (event.target instanceof HTMLElement && event.target.closest("input:not([type=checkbox]), select, dialog, textarea")) return;
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") {
        event.preventDefault();
        setSelected(new Set(ids));
      } else if (event.key === "Escape") setSelected(new Set());
    };
    document.addEventListener("keydown", keys);
    return () => document.removeEventListener("keydown", keys);
  }, [ids]);

  const addFound = (found: readonly FoundFile[]): void => {
    if (found.length) addFiles(projectId, found, autoSegment.peek());
  };

  const runSegment = async (options: Required<SegmentRequest>): Promise<void> => {
    if (asked?.kind !== "segment") return;
    const { ids: which, all, onlyMissing } = asked;
    setAsked(null);
    try {
      const body = all ? { all: true, ...(onlyMissing ? { onlyMissing } : {}) } : { imageIds: [...which] };
      const answer = await api.segmentation.batch(projectId, { ...options, ...body });
      tell(t("segment.accepted", { n: answer.accepted }));
      setSelected(new Set());
      void store.load();
    } catch (error) {
      tellProblem(error);
    }
  };

  const saveDefaults = async (options: Required<SegmentRequest>): Promise<void> => {
    setAsked(null);
    try {
      store.project.value = await api.projects.update(projectId, {
        defaultModel: options.model, defaultThreshold: options.threshold, detectHoles: options.detectHoles,
      });
      tell(t("segment.saved"));
    } catch (error) {
      tellProblem(error);
    }
  };

  const removeImages = async (which: readonly string[]): Promise<void> => {
    if (!(await confirmAction(t("gallery.deleteTitle", { n: which.length }), t("gallery.deleteText"), t("action.delete")))) return;
    const problems = await each(which, async (id) => {
      await api.images.remove(id);
      store.remove(id);
    });
    setSelected(new Set());
    if (problems.length) tellProblem(problems[0]);
  };

  const cancelImages = async (which: readonly string[]): Promise<void> => {
    const jobs = which.flatMap((id) => {
      const image = store.image(id)?.peek();
      return image?.job && isUnfinished(imageState(image)) ? [image.job.id] : [];
    });
    const problems = await each(jobs, async (id) => store.setJob(await api.segmentation.cancel(id)));
    if (problems.length) tellProblem(problems[0]);
  };

  const all = async (run: () => Promise<unknown>): Promise<void> => {
    try {
      await run();
      void store.load();
    } catch (error) {
      tellProblem(error);
    }
  };

  if (store.gone.value)
    return (
      <Empty whole icon="search" title={t("gallery.goneTitle")} text={t("gallery.goneText")}>
        <Link class="btn btn-primary" href="/projects">{t("missing.back")}</Link>
      </Empty>
    );

  let body: JSX.Element;
  if (order.length === 0 && store.problem.value) body = <ProblemPanel problem={store.problem.value} retry={() => void store.load()} />;
  else if (order.length === 0 && !store.complete.value) body = <Loading />;
  else if (order.length === 0)
    body = (
      <Empty icon="upload" title={t("gallery.emptyTitle")} text={t("gallery.emptyText")}>
        <button class="btn btn-primary" type="button" onClick={() => picker.current?.click()}>
          <Icon name="upload" size={18} />{t("upload.choose")}
        </button>
        <button class="btn" type="button" onClick={() => folderPicker.current?.click()}>
          <Icon name="folder" size={18} />{t("upload.chooseFolder")}
        </button>
      </Empty>
    );
  else if (ids.length === 0) body = <Empty icon="search" title={t("gallery.noMatch")} text={t("gallery.noMatchText")} />;
  else body = <Grid store={store} ids={ids} selected={live} onSelect={select} />;

  const selectedIds = [...live];
  return (
    <div
      class={dropping ? "gallery drop-zone dropping" : "gallery drop-zone"}
      onDragOver={(event) => {
        if (!carriesFiles(event)) return;
        event.preventDefault();
        setDropping(true);
      }}
      onDragLeave={(event) => {
        if (!(event.relatedTarget instanceof Node) || !event.currentTarget.contains(event.relatedTarget)) setDropping(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        setDropping(false);
        if (event.dataTransfer) void filesOfDrop(event.dataTransfer).then(addFound);
      }}
    >
      <div class="page-head">
        <h1 class="ellipsis" title={project?.title}>{project?.title ?? " "}</h1>
        <HeadActions
          counts={counts} total={order.length}
          onUpload={() => picker.current?.click()} onFolder={() => folderPicker.current?.click()}
          onSegment={(onlyMissing) => setAsked({ kind: "segment", ids: [], all: true, onlyMissing })}
          onDefaults={() => setAsked({ kind: "defaults" })} onRename={() => setAsked({ kind: "rename" })}
          onCancelAll={() => void all(() => api.segmentation.cancelAll(projectId))}
          onRetryFailed={() => void all(() => api.segmentation.retryFailed(projectId))}
          onDelete={() => {
            if (project) void deleteProject(project).then((gone) => gone && navigate("/projects"));
          }}
        />
      </div>
      {order.length > 0 && <FilterBar counts={counts} filter={filter} sort={sort} text={text} total={order.length} />}
      {body}
      {live.size > 0 && (
        <BulkBar
          count={live.size} onClear={() => setSelected(new Set())} onAll={() => setSelected(new Set(ids))} total={ids.length}
          onSegment={() => setAsked({ kind: "segment", ids: selectedIds, all: false, onlyMissing: false })}
          onCancel={() => void cancelImages(selectedIds)} onDelete={() => void removeImages(selectedIds)}
        />
      )}
      <input
        ref={picker} class="file-input" type="file" multiple data-testid="upload-input" aria-label={t("upload.choose")} tabIndex={-1}
        onChange={(event) => {
          const found = filesOfList(event.currentTarget.files ?? []);
          event.currentTarget.value = "";
          addFound(found);
        }}
      />
      <input
        ref={folderPicker} class="file-input" type="file" multiple aria-label={t("upload.chooseFolder")} tabIndex={-1}
        {...{ webkitdirectory: true }}
        onChange={(event) => {
          const found = filesOfList(event.currentTarget.files ?? []);
          event.currentTarget.value = "";
          addFound(found);
        }}
      />
      {dropping && <div class="drop-hint" aria-hidden="true"><Icon name="upload" size={40} /><b>{t("gallery.dropHere")}</b></div>}
      {asked?.kind === "segment" && (
        <SegmentDialog
          project={project} onClose={() => setAsked(null)} onRun={(options) => void runSegment(options)}
          images={(asked.all ? order : asked.ids).flatMap((id) => store.image(id)?.peek() ?? [])}
          count={asked.all ? (asked.onlyMissing ? Math.max(1, order.length - counts.completed) : order.length) : asked.ids.length}
        />
      )}
      {asked?.kind === "defaults" && (
        <SegmentDialog project={project} count={0} onClose={() => setAsked(null)} onRun={(options) => void saveDefaults(options)} />
      )}
      {asked?.kind === "rename" && project && (
        <TitleDialog
          project={project}
          onClose={(saved) => {
            setAsked(null);
            if (saved) store.project.value = saved;
          }}
        />
      )}
    </div>
  );
}
