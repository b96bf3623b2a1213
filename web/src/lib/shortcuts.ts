/** Keys of the page itself, by place on the keyboard; those of the hands belong to the client library. */

export type Shortcuts = Readonly<Record<string, () => void>>;

/** Binds the keyboard until the returned function is called. */
export function listenShortcuts(shortcuts: Shortcuts, target: Window = window): () => void {
  const down = (event: KeyboardEvent): void => {
    const shortcut = shortcuts[event.code];
    if (!shortcut || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target) || document.querySelector("dialog[open]")) return;
    event.preventDefault(); // T must not type into the box it opens
    shortcut();
  };
  target.addEventListener("keydown", down);
  return () => target.removeEventListener("keydown", down);
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}
