// Dialogs on the browser's own <dialog>, which keeps the focus inside and closes with Esc.
import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { t } from "../i18n";
import { Icon } from "./icon";

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}

export function Dialog({ title, onClose, children, wide }: DialogProps): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (!dialog) return undefined;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      dialog.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  return (
    <dialog
      ref={ref} class={wide ? "dialog dialog-wide" : "dialog"} aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onPointerDown={(event) => {
        if (event.target === ref.current) onClose();
      }}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id={titleId}>{title}</h2>
          <button class="icon-btn" type="button" aria-label={t("action.close")} onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

interface Confirmation {
  title: string;
  text: string;
  action: string;
  danger: boolean;
  answer: (yes: boolean) => void;
}

const asked = signal<Confirmation | null>(null);

/** Asks before something that cannot be undone. */
export function confirmAction(title: string, text: string, action: string, danger = true): Promise<boolean> {
  return new Promise((resolve) => {
    asked.value = {
      title, text, action, danger,
      answer: (yes) => {
        asked.value = null;
        resolve(yes);
      },
    };
  });
}

export function ConfirmHost(): JSX.Element | null {
  const question = asked.value;
  if (!question) return null;
  return (
    <Dialog title={question.title} onClose={() => question.answer(false)}>
      <p class="dialog-text">{question.text}</p>
      <footer class="dialog-foot">
        <button class="btn" type="button" onClick={() => question.answer(false)}>
          {t("action.keep")}
        </button>
        <button
          class={question.danger ? "btn btn-danger" : "btn btn-primary"} type="button" data-testid="confirm-yes"
          onClick={() => question.answer(true)}
        >
          {question.action}
        </button>
      </footer>
    </Dialog>
  );
}
