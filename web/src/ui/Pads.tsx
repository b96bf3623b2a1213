import type { Action } from "@worldline/client";

import type { Walk } from "../state/walk";

interface Button {
  readonly action: Action;
  readonly face: string;
  readonly name: string;
  readonly place: "up" | "left" | "down" | "right";
}

const GROUPS: Readonly<Record<"move" | "look", { name: string; buttons: readonly Button[] }>> = {
  move: {
    name: "Walk",
    buttons: [
      { action: "w", face: "W", name: "Forward", place: "up" },
      { action: "a", face: "A", name: "Step left", place: "left" },
      { action: "s", face: "S", name: "Back", place: "down" },
      { action: "d", face: "D", name: "Step right", place: "right" },
    ],
  },
  look: {
    name: "Look",
    buttons: [
      { action: "i", face: "↑", name: "Look up", place: "up" },
      { action: "j", face: "←", name: "Look left", place: "left" },
      { action: "k", face: "↓", name: "Look down", place: "down" },
      { action: "l", face: "→", name: "Look right", place: "right" },
    ],
  },
};

/** Key caps that light up while their action is held, and that a mouse can hold too. */
export function Pads({ walk, group }: { readonly walk: Walk; readonly group: "move" | "look" }) {
  const { name, buttons } = GROUPS[group];
  return (
    <div class={`pad ${group}`} role="group" aria-label={name}>
      {buttons.map((button) => (
        <PadButton key={button.action} walk={walk} button={button} />
      ))}
    </div>
  );
}

function PadButton({ walk, button }: { readonly walk: Walk; readonly button: Button }) {
  const { hands } = walk.world;
  const held = walk.held.value.includes(button.action);
  const press = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    event.preventDefault(); // keep the focus where it is, and no long-press menu
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    hands.press(`button ${event.pointerId}`, button.action);
  };
  const release = (event: PointerEvent): void => hands.lift(`button ${event.pointerId}`);
  return (
    <button
      type="button"
      class={`cap ${button.place} ${held ? "held" : ""}`}
      aria-label={button.name}
      aria-pressed={held}
      tabIndex={-1}
      onPointerDown={press}
      onPointerUp={release}
      onPointerCancel={release}
      onLostPointerCapture={release}
      onContextMenu={(event) => event.preventDefault()}
    >
      {button.face}
    </button>
  );
}
