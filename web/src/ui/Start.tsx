import { useSignal, type Signal } from "@preact/signals";
import type { Support } from "@worldline/client";
import { useEffect, useRef } from "preact/hooks";

import { firstImage, galleryPicture, ownPicture, type GalleryEntry, type Picture } from "../lib/picture";
import { requestedSize, type ModelInfo } from "../lib/server";
import { isWorld, readWorld } from "../lib/worldfile";
import type { Preferences } from "../state/preferences";
import type { EnterRequest } from "../state/request";
import type { ServerState } from "./App";
import { Brand } from "./Brand";
import { Gallery } from "./Gallery";
import { Icon } from "./Icon";
import { Options } from "./Options";
import { hasCamera, Photo } from "./Photo";
import { Scenery } from "./Scenery";

interface Props {
  readonly model: ModelInfo | null;
  readonly gallery: readonly GalleryEntry[] | null;
  readonly server: ServerState;
  readonly preferences: Signal<Preferences>;
  readonly support: Support;
  /** What kept the visitor from entering; also set from outside. */
  readonly problem: Signal<string | null>;
  readonly enter: (request: EnterRequest) => void;
  /** A saved world was brought. */
  readonly walkInto: (world: Uint8Array) => void;
}

const MAX_SEED = 2 ** 53;
const FALLBACK_PROMPT = "A place to walk through, as the picture shows it.";
const SERVER_WORDS: Readonly<Record<ServerState, string>> = {
  unknown: "Looking for the server",
  ready: "Ready",
  warming: "The model is warming up",
  away: "The server does not answer",
};

/** The start: where to begin, in which words, and the way in. */
export function Start({ model, gallery, server, preferences, support, problem, enter, walkInto }: Props) {
  const picture = useSignal<Picture | null>(null);
  const own = useSignal<Picture | null>(null);
  const chosen = useSignal<GalleryEntry | null>(null);
  const prompt = useSignal("");
  const edited = useSignal(false);
  const seed = useSignal("42");
  const dragging = useSignal(false);
  const options = useSignal(false);
  const photo = useSignal(false);
  const file = useRef<HTMLInputElement>(null);
  const lens = useRef<HTMLInputElement>(null);
  const saved = useRef<HTMLInputElement>(null);

  const place = (entry: GalleryEntry): void => {
    picture.value = galleryPicture(entry);
    chosen.value = entry;
    if (!edited.value) prompt.value = entry.prompt;
    seed.value = String(entry.seed);
  };

  const choose = (entry: GalleryEntry): void => {
    problem.value = null;
    place(entry);
  };

  const chooseOwn = (): void => {
    picture.value = own.value;
    chosen.value = null;
    problem.value = null;
    if (!edited.value) prompt.value = "";
  };

  const bring = async (blob: Blob | null, name = "Your picture"): Promise<void> => {
    if (!blob) return;
    try {
      const previous = own.value;
      own.value = await ownPicture(blob, name);
      chooseOwn();
      if (previous) URL.revokeObjectURL(previous.url);
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };
  const bringFile = async (found: File | null): Promise<void> => {
    if (!found || !(await isWorld(found))) return bring(found, found?.name);
    try {
      problem.value = null;
      walkInto(await readWorld(found));
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };

  useEffect(() => {
    const first = gallery?.[0];
    if (first && !picture.value) place(first); // nobody chose: what was said stays
  }, [gallery]);

  useEffect(() => {
    const paste = (event: ClipboardEvent): void => {
      if (document.querySelector(".stage")) return; // this is behind a walk
      const found = firstImage(event.clipboardData);
      if (found) void bringFile(found);
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
        size: requestedSize(model, picture.value.portrait),
      });
    }
  };

  const drop = (event: DragEvent): void => {
    event.preventDefault();
    dragging.value = false;
    void bringFile(firstImage(event.dataTransfer));
  };

  const takeFile = (event: Event): void => {
    const input = event.currentTarget as HTMLInputElement;
    void bringFile(input.files?.[0] ?? null);
    input.value = "";
  };

  const toy = model?.family === "pocket";
  const loud = toy && picture.value !== null && chosen.value === null;
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
        <ServerPill server={server} model={model} />
      </header>
      <main>
        <section class="intro">
          <h1>
            Step into <br />
            <em>a picture.</em>
          </h1>
          <p class="lead">
            Every frame ahead of you is generated live as you walk. Choose where to begin, then take the keys.
          </p>
        </section>
        <section class="words">
          <label class="field">
            <span class="name">Prompt</span>
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
          {options.value && <Options seed={seed} preferences={preferences} support={support} />}
          <p class={`fine ${loud ? "loud" : ""}`}>
            {toy
              ? "The pocket model needs no graphics card: it draws 160 × 96 pixels of painted worlds that it knows by heart. A photograph becomes a toy world at best."
              : "A photograph works best when it looks ahead, at eye height."}
            {model?.notice && ` ${model.notice}`}
          </p>
        </section>
        <section class="go" aria-label="Enter">
          {problem.value && (
            <p class="problem" role="alert">
              {problem.value}
            </p>
          )}
          <button class="enter" type="submit" disabled={!picture.value}>
            Enter the world
            <Icon name="arrow" />
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
        <Gallery
          entries={gallery ?? []}
          chosen={chosen.value}
          own={own.value}
          choose={choose}
          chooseOwn={chooseOwn}
        >
          <span class="fine hint">Drop any picture or saved world here, or</span>
          <button type="button" class="plain small" onClick={() => file.current?.click()}>
            <Icon name="picture" />
            Open a picture
          </button>
          <button
            type="button"
            class="plain small"
            onClick={() => (hasCamera() ? (photo.value = true) : lens.current?.click())}
          >
            <Icon name="camera" />
            Take a photo
          </button>
          <button type="button" class="plain small" onClick={() => saved.current?.click()}>
            <Icon name="upload" />
            Open a world
          </button>
        </Gallery>
      </main>
      <input
        ref={file}
        class="file"
        type="file"
        accept="image/*"
        tabIndex={-1}
        aria-label="Picture file"
        onChange={takeFile}
      />
      <input
        ref={lens}
        class="file"
        type="file"
        accept="image/*"
        capture="environment"
        tabIndex={-1}
        aria-label="Photo"
        onChange={takeFile}
      />
      <input
        ref={saved}
        class="file"
        type="file"
        accept=".wl"
        tabIndex={-1}
        aria-label="World file"
        onChange={takeFile}
      />
      <KeysHelp />
      {dragging.value && <p class="dropping">Let go to walk into it</p>}
      {photo.value && (
        <Photo
          close={() => (photo.value = false)}
          take={(shot) => {
            photo.value = false;
            void bring(shot, "Your photo");
          }}
        />
      )}
    </form>
  );
}

function ServerPill({ server, model }: { readonly server: ServerState; readonly model: ModelInfo | null }) {
  const size = model?.sizes[0];
  return (
    <span class={`server ${server}`} role="status">
      <i />
      {SERVER_WORDS[server]}
      {model && <b>{model.id}</b>}
      {model && size && (
        <small>
          {size[0]} × {size[1]} · {model.fps} fps
        </small>
      )}
    </span>
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
        <kbd>→</kbd> or the mouse to look
      </span>
      <span>
        <kbd>T</kbd> new prompt
      </span>
      <span>
        <kbd>?</kbd> all keys
      </span>
    </footer>
  );
}
