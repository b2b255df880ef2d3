// Starts the interface: language first, then the session, then the screens.
import { render } from "preact";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/overlays.css";
import "./styles/shell.css";
import "./styles/screens.css";
import "./styles/gallery.css";
import "./styles/inspector.css";
import "./styles/viewer.css";
import { App } from "./app";
import { resumeSession, watchWake } from "./api/session";
import { startUploads } from "./features/upload/uploads";
import { startLocale } from "./i18n";
import { startLive } from "./live/socket";
import { startRouter } from "./router";

async function main(): Promise<void> {
  await startLocale();
  startRouter();
  startLive();
  startUploads();
  watchWake();
  const host = document.getElementById("app");
  if (host) render(<App />, host);
  await resumeSession();
}

void main();
