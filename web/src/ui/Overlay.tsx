import type { World } from "../world";

interface Props {
  readonly world: World;
  readonly leave: () => void;
}

/** Over the stage until the first frame is shown, and after the world has ended. */
export function Overlay({ world, leave }: Props) {
  const ending = world.ending.value;
  const retry = world.retryIn.value;
  const ended = world.phase.value === "ended" && ending !== null;
  const walked = ended && world.hud.value.size !== null; // its last frame stays visible behind
  return (
    <div class={`overlay ${ended ? "ended" : ""} ${walked ? "walked" : ""}`}>
      {!walked && <img class="backdrop" src={world.request.picture.url} alt="" />}
      {ended ? (
        <section class="card" role="alertdialog" aria-labelledby="ending">
          <h2 id="ending">{ending.title}</h2>
          <p>{ending.detail}</p>
          {retry !== null && <p class="fine">Trying again by itself…</p>}
          <div class="actions">
            {ending.retryable && (
              <button type="button" class="enter" onClick={() => void world.restart()}>
                {retry === null ? "Try again" : "Reconnect now"}
              </button>
            )}
            <button type="button" class="plain" onClick={leave}>
              Choose another start
            </button>
          </div>
        </section>
      ) : (
        <section class="opening" role="status">
          <span class="line" />
          <h2>{openingWords(world)}</h2>
          {world.late.value && <p class="fine">All seats may be taken. You are let in when one is free.</p>}
          <button type="button" class="plain" onClick={leave}>
            Cancel
          </button>
        </section>
      )}
    </div>
  );
}

function openingWords(world: World): string {
  if (world.warmingUp.value) return "The model is warming up";
  return world.phase.value === "opening" ? "Connecting" : "Opening the world";
}
