// The frame around every screen: rail, breadcrumb, state of the connection.
import type { ComponentChildren, JSX } from "preact";
import { user } from "../../api/session";
import { Icon, Logo, type IconName } from "../../components/icon";
import { t, type Key } from "../../i18n";
import { connection } from "../../live/socket";
import { Link, route } from "../../router";
import { crumbs } from "./crumbs";

const places: readonly { href: string; label: Key; icon: IconName; names: readonly string[] }[] = [
  { href: "/projects", label: "nav.projects", icon: "projects", names: ["projects", "project", "viewer"] },
  { href: "/queue", label: "nav.queue", icon: "queue", names: ["queue"] },
  { href: "/models", label: "nav.models", icon: "models", names: ["models"] },
  { href: "/settings", label: "nav.settings", icon: "settings", names: ["settings"] },
];

function Connection(): JSX.Element {
  const state = connection.value;
  const words: Readonly<Record<typeof state, [Key, Key]>> = {
    connecting: ["live.connecting", "live.connectingHelp"],
    live: ["live.live", "live.liveHelp"],
    reconnecting: ["live.reconnecting", "live.reconnectingHelp"],
    offline: ["live.offline", "live.offlineHelp"],
  };
  const [label, help] = words[state];
  return (
    <div class={`connection connection-${state}`} role="status" title={t(help)} data-testid="connection-state" data-state={state}>
      <Icon name={state === "offline" ? "offline" : "live"} size={16} />
      <span>{t(label)}</span>
    </div>
  );
}

export function Shell({ children }: { children: ComponentChildren }): JSX.Element {
  const { name } = route.value;
  const trail = crumbs.value;
  return (
    <div class="shell">
      <a class="skip" href="#content">{t("shell.skip")}</a>
      <nav class="rail" aria-label={t("shell.nav")}>
        <Link class="rail-logo" href="/projects" aria-label={t("nav.projects")}><Logo size={32} /></Link>
        {places.map((place) => (
          <Link
            key={place.href} class="rail-item" href={place.href} data-testid={`nav-${place.href.slice(1)}`}
            aria-current={place.names.includes(name) ? "page" : undefined}
          >
            <Icon name={place.icon} size={22} />
            <span>{t(place.label)}</span>
          </Link>
        ))}
      </nav>
      <header class="topbar">
        <nav class="crumbs" aria-label={t("shell.crumbs")}>
          <ol>
            {trail.map((crumb, at) => (
              <li key={`${at}${crumb.label}`} aria-current={at === trail.length - 1 ? "page" : undefined}>
                {crumb.href ? <Link href={crumb.href}>{crumb.label}</Link> : <span>{crumb.label}</span>}
              </li>
            ))}
          </ol>
        </nav>
        <Connection />
        <Link class="avatar" href="/settings" title={user.value?.email} aria-label={t("settings.account")}>
          {(user.value?.displayName || user.value?.email || "?").slice(0, 1).toUpperCase()}
        </Link>
      </header>
      <main id="content" class="content" tabIndex={0}>
        {connection.value === "offline" && name !== "viewer" && (
          <div class="notice notice-offline" role="status">
            <Icon name="offline" />
            <span>{t("live.offlineHelp")}</span>
          </div>
        )}
        {children}
      </main>
    </div>
  );
}
