// Addresses. Every place has one, so that back, reload and a sent link all lead to the same view.
import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";

export type Route =
  | { name: "signin" }
  | { name: "projects" }
  | { name: "project"; projectId: string }
  | { name: "viewer"; projectId: string; imageId: string }
  | { name: "queue" }
  | { name: "models" }
  | { name: "settings" }
  | { name: "missing" };

const ID = "([0-9a-fA-F-]{8,64})";

export function parseRoute(path: string): Route {
  if (path === "/" || path === "/projects") return { name: "projects" };
  if (path === "/signin") return { name: "signin" };
  if (path === "/queue") return { name: "queue" };
  if (path === "/models") return { name: "models" };
  if (path === "/settings") return { name: "settings" };
  const viewer = new RegExp(`^/projects/${ID}/images/${ID}/?$`).exec(path);
  if (viewer?.[1] && viewer[2]) return { name: "viewer", projectId: viewer[1], imageId: viewer[2] };
  const project = new RegExp(`^/projects/${ID}/?$`).exec(path);
  if (project?.[1]) return { name: "project", projectId: project[1] };
  return { name: "missing" };
}

export function pathOf(route: Route): string {
  switch (route.name) {
    case "project": return `/projects/${route.projectId}`;
    case "viewer": return `/projects/${route.projectId}/images/${route.imageId}`;
    case "missing": return "/";
    default: return `/${route.name}`;
  }
}

const inBrowser = typeof window !== "undefined";
export const route = signal<Route>(inBrowser ? parseRoute(location.pathname) : { name: "projects" });
export const search = signal<URLSearchParams>(new URLSearchParams(inBrowser ? location.search : ""));

function read(): void {
  const next = parseRoute(location.pathname);
  if (JSON.stringify(next) !== JSON.stringify(route.peek())) route.value = next;
  search.value = new URLSearchParams(location.search);
}

export function startRouter(): void {
  window.addEventListener("popstate", read);
}

export function navigate(to: string, options: { replace?: boolean } = {}): void {
  if (options.replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  read();
}

/** Changes one search parameter in place; an empty value removes it. */
export function setSearch(name: string, value: string): void {
  const params = new URLSearchParams(location.search);
  if (value) params.set(name, value);
  else params.delete(name);
  const text = params.toString();
  history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : ""));
  search.value = params;
}

type LinkProps = Omit<JSX.AnchorHTMLAttributes<HTMLAnchorElement>, "href"> & {
  href: string;
  children?: ComponentChildren;
  "data-testid"?: string;
};

/** A real anchor that changes the view without a reload. */
export function Link({ href, onClick, children, ...rest }: LinkProps): JSX.Element {
  const follow = (event: JSX.TargetedMouseEvent<HTMLAnchorElement>): void => {
    if (typeof onClick === "function") onClick(event);
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (event.defaultPrevented || !plain) return;
    event.preventDefault();
    navigate(href);
  };
  return (
    <a href={href} onClick={follow} {...rest}>
      {children}
    </a>
  );
}
