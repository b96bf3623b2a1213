import type { Action } from "../lib/keys";
import type { World } from "../world";

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

/** Key caps that light up while their action is held, and that fingers can hold too. */
export function Pads({ world, group }: { readonly world: World; readonly group: "move" | "look" }) {
  const { name, buttons } = GROUPS[group];
  return (
    <div class={`pad ${group}`} role="group" aria-label={name}>
      {buttons.map((button) => (
        <PadButton key={button.action} world={world} button={button} />
      ))}
    </div>
  );
}

function PadButton({ world, button }: { readonly world: World; readonly button: Button }) {
  const held = world.held.value.includes(button.action);
  const press = (event: PointerEvent): void => {
    if (event.button !== 0) return;
    event.preventDefault(); // keep the focus where it is, and no long-press menu
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
    world.input({ type: "press", source: `pointer ${event.pointerId}`, action: button.action });
  };
  const release = (event: PointerEvent): void =>
    world.input({ type: "release", source: `pointer ${event.pointerId}` });
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
