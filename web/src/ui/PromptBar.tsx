import { useSignal } from "@preact/signals";
import type { ComponentChildren, RefObject } from "preact";
import { useEffect } from "preact/hooks";

import type { Suggestion } from "../lib/suggestions";
import type { Walk } from "../state/walk";
import { Icon } from "./Icon";

interface Props {
  readonly walk: Walk;
  readonly offers: readonly Suggestion[];
  readonly input: RefObject<HTMLInputElement | null>;
  readonly stage: RefObject<HTMLElement | null>;
  readonly blend: number;
  /** What stands over the box, in place of the offers. */
  readonly above: ComponentChildren;
}

const SHOWN_FOR_MS = 5000;

/** A new prompt while walking; says when the first frame made from it was shown. */
export function PromptBar({ walk, offers, input, stage, blend, above }: Props) {
  const text = useSignal("");
  const state = walk.promptState.value;
  useEffect(() => {
    if (state?.phase !== "shown") return undefined;
    const timer = setTimeout(() => (walk.promptState.value = null), SHOWN_FOR_MS);
    return () => clearTimeout(timer);
  }, [walk, state]);
  const submit = (event: Event): void => {
    event.preventDefault();
    const prompt = text.value.trim();
    if (!prompt) return;
    walk.prompt(prompt, null, blend);
    text.value = "";
    stage.current?.focus();
  };
  const take = (offer: Suggestion): void => {
    walk.prompt(offer.prompt, offer.world, blend);
    stage.current?.focus();
  };
  return (
    <form class="say" onSubmit={submit}>
      {above}
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
          aria-keyshortcuts="T"
          autocomplete="off"
          enterKeyHint="send"
          onInput={(event) => (text.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") stage.current?.focus();
          }}
        />
        <span class="hint" role="status">
          {state === null && <kbd aria-hidden="true">T</kbd>}
          {state?.phase === "sent" && "sent…"}
          {state?.phase === "shown" && `shown after ${(state.ms / 1000).toFixed(1)} s`}
        </span>
        <button type="submit" aria-label="Send the prompt" disabled={text.value.trim() === ""}>
          <Icon name="send" />
        </button>
      </div>
    </form>
  );
}
