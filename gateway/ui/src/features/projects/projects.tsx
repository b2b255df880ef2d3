// All projects as cards.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../../api/endpoints";
import { sessionState } from "../../api/session";
import type { Project } from "../../api/types";
import { Empty, Menu, ProblemPanel, Ring, Skeleton } from "../../components/basics";
import { confirmAction, Dialog } from "../../components/dialog";
import { Icon } from "../../components/icon";
import { tellProblem } from "../../components/toasts";
import { locale, t } from "../../i18n";
import { formatAgo, formatPercent } from "../../i18n/format";
import { Link, navigate } from "../../router";
import { busyJobs, progressOf, projectList, projectsProblem, readProjects } from "../../store/projects";
import { modelList, readModels } from "../../store/models";
import { autoSegment } from "../../store/settings";
import { setCrumbs } from "../shell/crumbs";
import { carriesFiles, filesOfDrop, filesOfList, type FoundFile } from "../upload/files";
import { addFiles } from "../upload/uploads";

const POLL_MS = 4_000;

interface TitleProps {
  /** Null: a new project is made. */
  project: Project | null;
  suggestion?: string;
  onClose: (saved: Project | null) => void;
}

export function TitleDialog({ project, suggestion = "", onClose }: TitleProps): JSX.Element {
  const [title, setTitle] = useState(project?.title ?? suggestion);
  const [model, setModel] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const models = modelList.value ?? [];
  useEffect(() => {
    input.current?.select();
    if (!project) void readModels();
  }, []);
  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    const text = title.trim();
    if (!text || busy) return;
    setBusy(true);
    try {
      onClose(project ? await api.projects.update(project.id, { title: text }) : await api.projects.create(text, model ?? models[0]?.name ?? null));
    } catch (error) {
      setBusy(false);
      tellProblem(error);
    }
  };
  return (
    <Dialog title={t(project ? "projects.rename" : "projects.create")} onClose={() => onClose(null)}>
      <form onSubmit={(event) => void save(event)}>
        <label class="field">
          <span>{t("projects.name")}</span>
          <input
            ref={input} class="input" maxLength={255} required value={title} data-testid="project-title-input" autofocus
            placeholder={t("projects.namePlaceholder")} onInput={(event) => setTitle(event.currentTarget.value)}
          />
        </label>
        {!project && models.length > 1 && (
          <fieldset class="field">
            <legend>{t("projects.whatIsIt")}</legend>
            {models.map((one, i) => (
              <label key={one.name} class="choice">
                <input
                  type="radio" name="project-model" value={one.name} checked={(model ?? models[0]?.name) === one.name}
                  data-testid={`project-model-${i}`} onChange={() => setModel(one.name)}
                />
                <span><b>{one.title}</b><small>{one.description}</small></span>
              </label>
            ))}
          </fieldset>
        )}
        <footer class="dialog-foot">
          <button class="btn" type="button" onClick={() => onClose(null)}>{t("action.cancel")}</button>
          <button class="btn btn-primary" type="submit" disabled={busy || !title.trim()} data-testid="project-create-submit">
            {t(project ? "action.save" : "action.create")}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

export async function deleteProject(project: Project): Promise<boolean> {
  const sure = await confirmAction(
    t("projects.deleteTitle", { title: project.title }), t("projects.deleteText", { n: project.imageCount }), t("action.delete"));
  if (!sure) return false;
  try {
    await api.projects.remove(project.id);
    projectList.value = projectList.value?.filter((other) => other.id !== project.id) ?? null;
    return true;
  } catch (error) {
    tellProblem(error);
    return false;
  }
}

function Cover({ project }: { project: Project }): JSX.Element {
  if (!project.coverImageId) return <div class="cover cover-empty"><Icon name="image" size={32} /></div>;
  return (
    <img class="cover" src={api.images.thumbnailUrl(project.coverImageId)} alt="" loading="lazy" decoding="async" width={320} height={200} />
  );
}

function Card({ project, onRename }: { project: Project; onRename: () => void }): JSX.Element {
  const busy = busyJobs(project);
  const fraction = progressOf(project);
  const language = locale();
  return (
    <article class="project-card" data-testid="project-card" data-project-id={project.id}>
      <Link class="project-link" href={`/projects/${project.id}`} aria-label={project.title}>
        <Cover project={project} />
      </Link>
      {project.isSample && <span class="tag cover-tag">{t("projects.sampleTag")}</span>}
      <div class="project-info">
        <div class="grow min0">
          <h2 title={project.title}>
            <Link href={`/projects/${project.id}`} tabIndex={-1}>{project.title}</Link>
          </h2>
          <p class="muted">
            {t("projects.images", { n: project.imageCount })}
            {busy > 0 ? <> · <b class="accent">{t("projects.busy", { n: busy })}</b></> : null}
            {project.jobs.failed > 0 ? <> · <b class="warn">{t("projects.failed", { n: project.jobs.failed })}</b></> : null}
          </p>
          <p class="muted small">{t("projects.changed", { when: formatAgo(new Date(project.updatedAt), new Date(), language) })}</p>
        </div>
        {project.imageCount > 0 && (
          <Ring fraction={fraction} label={t("projects.progress", { percent: formatPercent(fraction, language) })} />
        )}
        <Menu
          label={t("projects.actions", { title: project.title })}
          items={[
            { label: t("projects.rename"), icon: "edit", run: onRename },
            { label: t("action.delete"), icon: "trash", danger: true, run: () => void deleteProject(project) },
          ]}
        />
      </div>
    </article>
  );
}

export function ProjectsScreen(): JSX.Element {
  const [dialog, setDialog] = useState<{ project: Project | null; found?: readonly FoundFile[]; suggestion?: string } | null>(null);
  const [dropping, setDropping] = useState(false);
  const [opening, setOpening] = useState(false);
  const picker = useRef<HTMLInputElement>(null);
  const list = projectList.value;
  const language = locale();

  useEffect(() => setCrumbs([{ label: t("nav.projects") }]), [language]);
  useEffect(() => {
    void readProjects();
    const timer = setInterval(() => {
      const busy = projectList.peek()?.some((project) => busyJobs(project) > 0);
      if (busy && document.visibilityState === "visible" && sessionState.peek() === "in") void readProjects();
    }, POLL_MS);
    const seen = (): void => {
      if (document.visibilityState === "visible") void readProjects();
    };
    document.addEventListener("visibilitychange", seen);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, []);

  /** Dropped images need a project: a new one, named after the folder or the day. */
  const startWith = (found: readonly FoundFile[]): void => {
    if (found.length === 0) return;
    const folder = found[0]?.path.includes("/") ? found[0].path.split("/")[0] : undefined;
    const day = new Intl.DateTimeFormat(language, { dateStyle: "long" }).format(new Date());
    setDialog({ project: null, found, suggestion: folder ?? t("projects.newNamed", { date: day }) });
  };

  const openSample = async (): Promise<void> => {
    setOpening(true);
    try {
      const project = await api.projects.sample();
      navigate(`/projects/${project.id}`);
    } catch (error) {
      tellProblem(error);
      setOpening(false);
    }
  };

  const closed = (saved: Project | null): void => {
    const created = dialog?.project === null;
    const found = dialog?.found;
    setDialog(null);
    if (!saved) return;
    if (found) addFiles(saved.id, found, autoSegment.peek());
    if (created) navigate(`/projects/${saved.id}`);
    else void readProjects();
  };

  let body: JSX.Element;
  if (list === null && projectsProblem.value) body = <ProblemPanel problem={projectsProblem.value} retry={() => void readProjects()} />;
  else if (list === null)
    body = <div class="project-grid">{[1, 2, 3, 4].map((n) => <Skeleton key={n} class="project-skeleton" />)}</div>;
  else if (list.length === 0)
    body = (
      <Empty icon="upload" title={t("projects.emptyTitle")} text={t("projects.emptyText")}>
        <button class="btn btn-primary" type="button" onClick={() => picker.current?.click()}>
          <Icon name="upload" size={18} />{t("upload.choose")}
        </button>
        <button class="btn" type="button" disabled={opening} data-testid="open-sample" onClick={() => void openSample()}>
          <Icon name="sparkle" size={18} />{t("projects.openSample")}
        </button>
      </Empty>
    );
  else
    body = (
      <div class="project-grid">
        {list.map((project) => (
          <Card key={project.id} project={project} onRename={() => setDialog({ project })} />
        ))}
      </div>
    );

  return (
    <div
      class={dropping ? "page drop-zone dropping" : "page drop-zone"}
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
        if (event.dataTransfer) void filesOfDrop(event.dataTransfer).then(startWith);
      }}
    >
      <div class="page-head">
        <h1>{t("nav.projects")}</h1>
        {list !== null && list.length > 0 && !list.some((project) => project.isSample) && (
          <button class="btn btn-quiet" type="button" disabled={opening} data-testid="open-sample" onClick={() => void openSample()}>
            <Icon name="sparkle" size={18} />{t("projects.openSample")}
          </button>
        )}
        <button class="btn btn-primary" type="button" data-testid="project-create" onClick={() => setDialog({ project: null })}>
          <Icon name="plus" size={18} />{t("projects.create")}
        </button>
      </div>
      <input
        ref={picker} type="file" multiple hidden aria-label={t("upload.choose")}
        onChange={(event) => {
          const found = filesOfList(event.currentTarget.files ?? []);
          event.currentTarget.value = "";
          startWith(found);
        }}
      />
      {body}
      {dropping && <div class="drop-hint" aria-hidden="true"><Icon name="upload" size={40} /><b>{t("projects.dropHere")}</b></div>}
      {dialog && <TitleDialog project={dialog.project} suggestion={dialog.suggestion ?? ""} onClose={closed} />}
    </div>
  );
}
