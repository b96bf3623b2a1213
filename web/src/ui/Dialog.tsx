import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

import { Icon } from "./Icon";

interface Props {
  readonly title: string;
  readonly kind?: "drawer" | "card";
  readonly close: () => void;
  readonly children: ComponentChildren;
}

/** A window over everything: the browser keeps the focus inside and gives it back; Escape closes. */
export function Dialog({ title, kind = "card", close, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const name = useId();
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class={`dialog ${kind}`}
      aria-labelledby={name}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onPointerDown={(event) => {
        if (event.target === event.currentTarget && outside(event)) close();
      }}
    >
      <header>
        <h2 id={name}>{title}</h2>
        <button type="button" class="round" aria-label="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      {children}
    </dialog>
  );
}

/** True on the backdrop, which counts as the dialog itself. */
function outside(event: PointerEvent): boolean {
  const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
  const { clientX: x, clientY: y } = event;
  return x < box.left || x > box.right || y < box.top || y > box.bottom;
}
