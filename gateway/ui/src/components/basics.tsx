// Small parts used everywhere: ring, bar, switch, empty state, menu.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { locale, t } from "../i18n";
import { formatPercent } from "../i18n/format";
import { problemWords } from "../api/problem";
import { Icon, type IconName } from "./icon";

export function Ring({ fraction, size = 36, label }: { fraction: number; size?: number; label: string }): JSX.Element {
  const radius = 15;
  const around = 2 * Math.PI * radius;
  const part = Math.min(1, Math.max(0, fraction));
  return (
    <svg class="ring" width={size} height={size} viewBox="0 0 36 36" role="img" aria-label={label}>
      <circle class="ring-track" cx="18" cy="18" r={radius} />
      <circle
        class="ring-value" cx="18" cy="18" r={radius} stroke-dasharray={`${part * around} ${around}`}
        transform="rotate(-90 18 18)"
      />
      {part >= 1 ? (
        <path class="ring-check" d="M12 18.500l4.2 4.200L24.5 14" />
      ) : (
        <text x="18" y="21.5" text-anchor="middle">{Math.floor(part * 100)}</text>
      )}
    </svg>
  );
}

export function Bar({ fraction, label, tone = "" }: { fraction: number; label: string; tone?: string }): JSX.Element {
  const part = Math.min(1, Math.max(0, fraction));
  return (
    <div
      class={`bar ${tone}`} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100}
      aria-valuenow={Math.floor(part * 100)} aria-valuetext={formatPercent(part, locale())}
    >
      <div class="bar-fill" style={{ transform: `scaleX(${part})` }} />
    </div>
  );
}

interface SwitchProps {
  checked: boolean;
  onChange: (on: boolean) => void;
  children: ComponentChildren;
  testId?: string;
}

export function Switch({ checked, onChange, children, testId }: SwitchProps): JSX.Element {
  return (
    <label class="switch">
      <input
        type="checkbox" role="switch" checked={checked} data-testid={testId}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
      <span class="switch-track" aria-hidden="true" />
      <span>{children}</span>
    </label>
  );
}

interface EmptyProps {
  icon: IconName;
  title: string;
  text?: string;
  children?: ComponentChildren;
  /** True where this is the whole page. */
  whole?: boolean;
}

export function Empty({ icon, title, text, children, whole = false }: EmptyProps): JSX.Element {
  return (
    <div class="empty">
      <div class="empty-icon">
        <Icon name={icon} size={32} />
      </div>
      {whole ? <h1>{title}</h1> : <h2>{title}</h2>}
      {text && <p>{text}</p>}
      {children && <div class="empty-actions">{children}</div>}
    </div>
  );
}

export function ProblemPanel({ problem, retry }: { problem: unknown; retry: () => void }): JSX.Element {
  return (
    <Empty whole icon="alert" title={t("error.title")} text={problemWords(problem)}>
      <button class="btn btn-primary" type="button" onClick={retry}>
        {t("action.retry")}
      </button>
    </Empty>
  );
}

export function Skeleton({ class: name = "" }: { class?: string }): JSX.Element {
  return <div class={`skeleton ${name}`} aria-hidden="true" />;
}

export interface MenuItem {
  label: string;
  icon: IconName;
  run: () => void;
  danger?: boolean;
  testId?: string;
}

interface MenuProps {
  label: string;
  items: readonly MenuItem[];
  icon?: IconName;
  class?: string;
  children?: ComponentChildren;
  testId?: string;
}

/** A button that opens a list of actions; arrows move, Esc closes. */
export function Menu({ label, items, icon = "more", class: name = "icon-btn", children, testId }: MenuProps): JSX.Element {
  const [shown, setShown] = useState(false);
  const ref = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!shown) return undefined;
    ref.current?.querySelector<HTMLElement>("[role=menuitem]")?.focus();
    const away = (event: PointerEvent): void => {
      if (event.target instanceof Node && !ref.current?.contains(event.target)) setShown(false);
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [shown]);
  const keys = (event: KeyboardEvent): void => {
    const list = [...(ref.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const at = list.indexOf(document.activeElement as HTMLElement);
    if (event.key === "Escape") {
      setShown(false);
      button.current?.focus();
    } else if (event.key === "ArrowDown") list[(at + 1) % list.length]?.focus();
    else if (event.key === "ArrowUp") list[(at - 1 + list.length) % list.length]?.focus();
    else if (event.key === "Tab") setShown(false);
    else return;
    if (event.key !== "Tab") event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="menu" ref={ref} onKeyDown={shown ? keys : undefined}>
      <button
        ref={button} class={name} type="button" aria-haspopup="menu" aria-expanded={shown} data-testid={testId}
        aria-label={children ? undefined : label} title={children ? undefined : label}
        onClick={(event) => {
          event.preventDefault();
          setShown(!shown);
        }}
      >
        {children ?? <Icon name={icon} />}
      </button>
      {shown && (
        <div class="menu-list" role="menu" aria-label={label}>
          {items.map((item) => (
            <button
              key={item.label} class={item.danger ? "menu-item danger" : "menu-item"} type="button" role="menuitem"
              tabIndex={-1} data-testid={item.testId}
              onClick={(event) => {
                event.preventDefault();
                setShown(false);
                button.current?.focus();
                item.run();
              }}
            >
              <Icon name={item.icon} size={18} />
              {item.label}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
