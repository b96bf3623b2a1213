import { useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect } from "preact/hooks";

import type { Suggestion } from "../lib/suggestions";
import type { World } from "../world";

interface Props {
  readonly world: World;
  readonly offers: readonly Suggestion[];
  readonly input: RefObject<HTMLInputElement | null>;
  readonly stage: RefObject<HTMLDivElement | null>;
}

const SHOWN_FOR_MS = 5000;

/** A new prompt while walking; says when the first frame made from it was shown. */
export function PromptBar({ world, offers, input, stage }: Props) {
  const text = useSignal("");
  const state = world.promptState.value;
  useEffect(() => {
    if (state?.phase !== "shown") return undefined;
    const timer = setTimeout(() => (world.promptState.value = null), SHOWN_FOR_MS);
    return () => clearTimeout(timer);
  }, [world, state]);
  const submit = (event: Event): void => {
    event.preventDefault();
    const prompt = text.value.trim();
    if (!prompt || !world.sendPrompt(prompt)) return;
    text.value = "";
    stage.current?.focus();
  };
  const take = (offer: Suggestion): void => {
    world.sendPrompt(offer.prompt, offer.world);
    stage.current?.focus();
  };
  return (
    <form class="say" onSubmit={submit}>
      {offers.length > 0 && (
        <div class="offers" role="group" aria-label="Other worlds">
          {offers.map((offer) => (
            <button type="button" key={offer.world} title={offer.prompt} onClick={() => take(offer)}>
              {offer.world}
            </button>
          ))}
        </div>
      )}
      <div class="prompt">
        <input
          ref={input}
          value={text.value}
          maxLength={2000}
          placeholder="Change the world…"
          aria-label="New prompt"
          enterKeyHint="send"
          onInput={(event) => (text.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") stage.current?.focus();
          }}
        />
        <span class="hint" role="status">
          {state === null && <kbd>T</kbd>}
          {state?.phase === "sent" && "sent…"}
          {state?.phase === "shown" && `shown after ${(state.ms / 1000).toFixed(1)} s`}
        </span>
        <button type="submit" aria-label="Send the prompt" disabled={text.value.trim() === ""}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M12 19V5m-6 6 6-6 6 6" />
          </svg>
        </button>
      </div>
    </form>
  );
}
