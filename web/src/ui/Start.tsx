import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { firstImage, galleryPicture, ownPicture, type GalleryEntry, type Picture } from "../lib/picture";
import type { ModelInfo } from "../lib/server";
import type { OutputFormat } from "../lib/wire";
import type { WalkRequest } from "../world";
import type { ServerState } from "./App";
import { Brand } from "./Brand";
import { Gallery } from "./Gallery";
import { Options } from "./Options";
import { Scenery } from "./Scenery";

interface Props {
  readonly model: ModelInfo | null;
  readonly gallery: readonly GalleryEntry[] | null;
  readonly server: ServerState;
  readonly enter: (request: WalkRequest) => void;
}

const MAX_SEED = 0xffffffff;
const FALLBACK_PROMPT = "A place to walk through, as the picture shows it.";
const SERVER_WORDS: Readonly<Record<ServerState, string>> = {
  unknown: "Looking for the server",
  ready: "Ready",
  warming: "The model is warming up",
  away: "The server does not answer",
};

/** The start: where to begin, in which words, and the way in. */
export function Start({ model, gallery, server, enter }: Props) {
  const picture = useSignal<Picture | null>(null);
  const chosen = useSignal<GalleryEntry | null>(null);
  const prompt = useSignal("");
  const edited = useSignal(false);
  const seed = useSignal("42");
  const format = useSignal<OutputFormat>("jpeg");
  const quality = useSignal(95);
  const problem = useSignal<string | null>(null);
  const dragging = useSignal(false);
  const options = useSignal(false);
  const file = useRef<HTMLInputElement>(null);

  const choose = (entry: GalleryEntry): void => {
    picture.value = galleryPicture(entry);
    chosen.value = entry;
    problem.value = null;
    if (!edited.value) prompt.value = entry.prompt;
    seed.value = String(entry.seed);
  };

  const bring = async (blob: File | null): Promise<void> => {
    if (!blob) return;
    try {
      const previous = picture.value;
      picture.value = await ownPicture(blob, blob.name || "Your picture");
      chosen.value = null;
      if (previous?.own) URL.revokeObjectURL(previous.url);
      problem.value = null;
      if (!edited.value) prompt.value = "";
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };

  useEffect(() => {
    const first = gallery?.[0];
    if (first && !picture.value) choose(first);
  }, [gallery]);

  useEffect(() => {
    const paste = (event: ClipboardEvent): void => {
      const found = firstImage(event.clipboardData);
      if (found) void bring(found);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);

  const submit = (event: Event): void => {
    event.preventDefault();
    const number = Number(seed.value);
    if (!picture.value) {
      problem.value = "Choose a start picture first.";
    } else if (!/^\d+$/.test(seed.value.trim()) || number > MAX_SEED) {
      problem.value = `The seed is a whole number from 0 to ${MAX_SEED}.`;
    } else {
      problem.value = null;
      enter({
        picture: picture.value,
        prompt: prompt.value.trim() || FALLBACK_PROMPT,
        place: edited.value ? null : (chosen.value?.world ?? null),
        seed: number,
        format: format.value,
        quality: quality.value,
        model,
      });
    }
  };

  const drop = (event: DragEvent): void => {
    event.preventDefault();
    dragging.value = false;
    void bring(firstImage(event.dataTransfer));
  };

  const toy = model?.family === "pocket";
  const own = picture.value?.own ? picture.value : null;
  return (
    <form
      class="start"
      onSubmit={submit}
      onDragOver={(event) => {
        event.preventDefault();
        dragging.value = true;
      }}
      onDragLeave={(event) => {
        if (event.relatedTarget === null) dragging.value = false;
      }}
      onDrop={drop}
    >
      <Scenery picture={picture.value} />
      <header class="top">
        <Brand />
        <span class={`server ${server}`} role="status">
          <i />
          {SERVER_WORDS[server]}
          {model && <b>{model.id}</b>}
        </span>
      </header>
      <main>
        <section class="intro">
          <h1>
            Step into <br />a picture.
          </h1>
          <p class="lead">
            Every frame ahead of you is generated live as you walk. Choose where to begin, then take the keys.
          </p>
        </section>
        <Gallery
          entries={gallery ?? []}
          chosen={chosen.value}
          own={own}
          ownFirst={model !== null && !toy}
          choose={choose}
          bring={() => file.current?.click()}
        />
        <input
          ref={file}
          class="file"
          type="file"
          accept="image/*"
          tabIndex={-1}
          aria-label="Picture file"
          onChange={(event) => {
            void bring(event.currentTarget.files?.[0] ?? null);
            event.currentTarget.value = "";
          }}
        />
        <section class="words">
          <label class="field">
            <span>Prompt</span>
            <textarea
              rows={2}
              value={prompt.value}
              maxLength={2000}
              placeholder="What does the place look like?"
              onInput={(event) => {
                prompt.value = event.currentTarget.value;
                edited.value = prompt.value !== "";
              }}
            />
          </label>
          {options.value && <Options seed={seed} format={format} quality={quality} />}
          <p class={`fine ${own && toy ? "loud" : ""}`}>
            {toy
              ? "The pocket model needs no graphics card: it draws 160 × 96 pixels of painted worlds that it knows by heart. A photograph becomes a toy world at best."
              : "A photograph works best when it looks ahead, at eye height."}
            {model?.notice && ` ${model.notice}`}
          </p>
        </section>
        <section class="go">
          {problem.value && (
            <p class="problem" role="alert">
              {problem.value}
            </p>
          )}
          <button class="enter" type="submit" disabled={!picture.value}>
            Enter the world
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="M5 12h14m-6-6 6 6-6 6" />
            </svg>
          </button>
          <button
            type="button"
            class="plain more"
            aria-expanded={options.value}
            onClick={() => (options.value = !options.value)}
          >
            Options
          </button>
        </section>
      </main>
      <KeysHelp />
      {dragging.value && <p class="dropping">Let go to walk into this picture</p>}
    </form>
  );
}

function KeysHelp() {
  return (
    <footer class="keys-help">
      <span>
        <kbd>W</kbd>
        <kbd>A</kbd>
        <kbd>S</kbd>
        <kbd>D</kbd> walk
      </span>
      <span>
        <kbd>←</kbd>
        <kbd>↑</kbd>
        <kbd>↓</kbd>
        <kbd>→</kbd> look
      </span>
      <span>
        <kbd>T</kbd> new prompt
      </span>
      <span>
        <kbd>H</kbd> hide the interface
      </span>
      <span>
        <kbd>F</kbd> full screen
      </span>
    </footer>
  );
}
