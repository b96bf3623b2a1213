import type { Walk } from "../state/walk";
import { Icon } from "./Icon";

/** What a spectator has in place of keys: who else looks, and the way to the controls. */
export function Watching({ walk }: { readonly walk: Walk }) {
  const control = walk.control.value;
  const me = walk.seat.value?.viewer;
  const asked = me !== undefined && (control?.asking ?? []).includes(me);
  const others = Math.max(0, (control?.viewers ?? 1) - 1);
  return (
    <section class="watching" aria-label="Watching">
      <Icon name="eye" />
      <p role="status">
        <b>You are watching</b>
        <span>{others === 0 ? "a world that somebody walks" : `with ${others} ${others === 1 ? "other" : "others"}`}</span>
      </p>
      <button type="button" class="enter small" disabled={asked} onClick={() => void walk.world.askControl()}>
        <Icon name="hand" />
        {asked ? "Asked, waiting" : "Ask for control"}
      </button>
    </section>
  );
}
