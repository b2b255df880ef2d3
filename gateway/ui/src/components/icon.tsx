// Line icons, 24 px grid, drawn with the text colour.
import type { JSX } from "preact";

const paths = {
  projects: "M4 5h6v6H4zM14 5h6v6h-6zM4 14h6v5H4zM14 14h6v5h-6z",
  queue: "M4 6h16M4 12h11M4 18h7M18 15v6l4-3z",
  models: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM12 12l8-4.500M12 12v9M12 12L4 7.5",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.800v4.400M9 14.800v4.4",
  upload: "M12 16V4M7 9l5-5 5 5M4 17v3h16v-3",
  folder: "M3 6h6l2 2h10v11H3z",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.500l4.5 4.500L19 7.5",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  retry: "M19 12a7 7 0 1 1-2.2-5.100M19 3v5h-5",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M12 8v4.500l3 2",
  alert: "M12 4l9 16H3zM12 10v4.500M12 17.200v.3",
  stop: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M6.5 6.500l11 11",
  dot: "M12 11.500a.5.5 0 1 0 0 1 .5.5 0 0 0 0-1",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M15.5 15.500L21 21",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M5 9l7 7 7-7",
  up: "M5 15l7-7 7 7",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12M12 9.200a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6",
  eyeOff: "M4 4l16 16M9.5 6c.8-.3 1.6-.5 2.5-.5 6 0 9.5 6.5 9.5 6.500s-.9 1.7-2.6 3.300M6.2 7.800C3.8 9.5 2.5 12 2.5 12S6 18.5 12 18.500c1.5 0 2.9-.4 4.1-1",
  hole: "M12 4c5 0 8 3 8 8s-3 8-8 8-8-3-8-8 3-8 8-8M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6",
  help: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M9.8 10a2.3 2.3 0 1 1 3.3 2.100c-.8.4-1.1.9-1.1 1.700M12 16.300v.2",
  download: "M12 4v11M7 11l5 5 5-5M4 19h16",
  panel: "M4 5h16v14H4zM14 5v14",
  film: "M3 7h18v10H3zM8 7v10M13 7v10M18 7v10",
  sparkle: "M11 4l1.8 5.200L18 11l-5.2 1.800L11 18l-1.8-5.200L4 11l5.2-1.800zM18.5 15l.8 2.2 2.2.8-2.2.8-.8 2.2-.8-2.2-2.2-.8 2.2-.8z",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  live: "M12 11a1 1 0 1 0 0 2 1 1 0 0 0 0-2M7.8 7.800a6 6 0 0 0 0 8.400M16.2 7.800a6 6 0 0 1 0 8.4",
  offline: "M4 4l16 16M3 9.500a13 13 0 0 1 4-2.500M11 6a13 13 0 0 1 10 3.500M6 13a9 9 0 0 1 3.5-2.200M15 11.300A9 9 0 0 1 18 13M12 18h.01",
  worker: "M6 6h12v12H6zM9.5 9.500h5v5h-5zM9 3v3M15 3v3M9 18v3M15 18v3M3 9h3M3 15h3M18 9h3M18 15h3",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name, size = 20 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg
      class="icon" width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor"
      stroke-width={name === "more" ? 2.6 : 1.7} stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"
    >
      <path d={paths[name]} />
    </svg>
  );
}

/** The mark of the product: an outline with a hole. */
export function Logo({ size = 32 }: { size?: number }): JSX.Element {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#0f3d5c" />
      <path
        d="M16 5.500c6.4 0 10.3 4.3 10.3 9.8 0 6.6-4.6 11.2-10.6 11.200C9.6 26.5 5.7 22 5.7 16.2 5.7 10.2 9.8 5.5 16 5.500Z"
        fill="none" stroke="#5cc8f2" stroke-width="2.6"
      />
      <circle cx="18.5" cy="14.5" r="3.6" fill="none" stroke="#ffb454" stroke-width="2.2" />
    </svg>
  );
}
