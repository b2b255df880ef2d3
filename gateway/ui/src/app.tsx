// Chooses the screen for the address.
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { sessionState } from "./api/session";
import { Empty } from "./components/basics";
import { ConfirmHost } from "./components/dialog";
import { Toasts } from "./components/toasts";
import { SignIn } from "./features/auth/signin";
import { GalleryScreen } from "./features/gallery/gallery";
import { ModelsScreen } from "./features/models/models";
import { ProjectsScreen } from "./features/projects/projects";
import { QueueScreen } from "./features/queue/queue";
import { SettingsScreen } from "./features/settings/settings";
import { Shell } from "./features/shell/shell";
import { UploadTray } from "./features/upload/tray";
import { ViewerScreen } from "./features/viewer/viewer";
import { t } from "./i18n";
import { Link, navigate, route, search } from "./router";
import { closeProject } from "./store/project";

function Screen(): JSX.Element {
  const place = route.value;
  switch (place.name) {
    case "projects": return <ProjectsScreen />;
    case "project": return <GalleryScreen key={place.projectId} projectId={place.projectId} />;
    case "viewer": return <ViewerScreen key={place.projectId} projectId={place.projectId} imageId={place.imageId} />;
    case "queue": return <QueueScreen />;
    case "models": return <ModelsScreen />;
    case "settings": return <SettingsScreen />;
    default:
      return (
        <Empty whole icon="search" title={t("missing.title")} text={t("missing.text")}>
          <Link class="btn btn-primary" href="/projects">{t("missing.back")}</Link>
        </Empty>
      );
  }
}

export function App(): JSX.Element {
  const state = sessionState.value;
  const place = route.value;
  const at = place.name;
  useEffect(() => {
    if (state === "out") closeProject();
    if (state === "out" && at !== "signin") {
      const here = location.pathname + location.search;
      navigate(here === "/" || here === "/projects" ? "/signin" : `/signin?next=${encodeURIComponent(here)}`, { replace: true });
    }
    if (state === "in" && at === "signin") {
      const next = search.peek().get("next") ?? "/projects";
      // Only places of this site.
      navigate(/^\/(?![/\\])/.test(next) ? next : "/projects", { replace: true });
    }
  }, [state, at]);

  let body: JSX.Element;
  if (state === "in" && at !== "signin") body = <Shell><Screen /></Shell>;
  else if (state === "out" && at === "signin") body = <SignIn />;
  else body = <div class="starting" role="status" aria-label={t("shell.starting")}><div class="spinner" /></div>;
  return (
    <div class={at === "viewer" ? "app always-dark" : "app"}>
      {body}
      {state === "in" && <UploadTray />}
      <ConfirmHost />
      <Toasts />
    </div>
  );
}
