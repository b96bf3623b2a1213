import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { firstImage, galleryPicture, ownPicture, type GalleryEntry, type Picture } from "../lib/picture";
import type { ModelInfo } from "../lib/server";
import { OUTPUT_FORMATS, type OutputFormat } from "../lib/wire";
import type { WalkRequest } from "../world";
import type { ServerState } from "./App";
import { Brand } from "./Brand";

interface Props {
  readonly model: ModelInfo | null;
  readonly gallery: readonly GalleryEntry[] | null;
  readonly server: ServerState;
  readonly enter: (request: WalkRequest) => void;
}

const MAX_SEED = 0xffffffff;
const FALLBACK_PROMPT = "A place to walk through, as the picture shows it.";
const FORMAT_NAMES: Readonly<Record<OutputFormat, string>> = { jpeg: "JPEG", webp: "WebP", raw: "Raw" };
const FORMAT_HINTS: Readonly<Record<OutputFormat, string>> = {
  jpeg: "Fast, good on every network",
  webp: "Smaller, slower to encode",
  raw: "Exact pixels, for a fast network",
};
const SERVER_WORDS: Readonly<Record<ServerState, string>> = {
  unknown: "Looking for the server",
  ready: "Ready",
  warming: "The model is warming up",
  away: "The server does not answer",
};

export function Start({ model, gallery, server, enter }: Props) {
  const picture = useSignal<Picture | null>(null);
  const prompt = useSignal("");
  const edited = useSignal(false);
  const seed = useSignal("42");
  const format = useSignal<OutputFormat>("jpeg");
  const quality = useSignal(95);
  const problem = useSignal<string | null>(null);
  const dragging = useSignal(false);
  const file = useRef<HTMLInputElement>(null);

  const choose = (entry: GalleryEntry): void => {
    picture.value = galleryPicture(entry);
    problem.value = null;
    if (!edited.value) prompt.value = entry.prompt;
    seed.value = String(entry.seed);
  };

  const bring = async (blob: File | null): Promise<void> => {
    if (!blob) return;
    try {
      const previous = picture.value;
      picture.value = await ownPicture(blob, blob.name || "Your picture");
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
    const chosen = picture.value;
    const number = Number(seed.value);
    if (!chosen) {
      problem.value = "Choose a start picture first.";
    } else if (!/^\d+$/.test(seed.value.trim()) || number > MAX_SEED) {
      problem.value = `The seed is a whole number from 0 to ${MAX_SEED}.`;
    } else {
      problem.value = null;
      enter({
        picture: chosen,
        prompt: prompt.value.trim() || FALLBACK_PROMPT,
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
  return (
    <div
      class="start"
      onDragOver={(event) => {
        event.preventDefault();
        dragging.value = true;
      }}
      onDragLeave={(event) => {
        if (event.relatedTarget === null) dragging.value = false;
      }}
      onDrop={drop}
    >
      {picture.value && <img class="backdrop" src={picture.value.url} alt="" key={picture.value.url} />}
      <header class="top">
        <Brand />
        <span class={`server ${server}`} role="status">
          <i />
          {SERVER_WORDS[server]}
          {model && <b>{model.id}</b>}
        </span>
      </header>
      <main>
        <section class="scene" aria-label="Start picture">
          <button
            type="button"
            class={`frame ${dragging.value ? "dragging" : ""} ${picture.value ? "" : "empty"}`}
            onClick={() => file.current?.click()}
            aria-label="Choose a picture of your own"
          >
            {picture.value && <img src={picture.value.url} alt={picture.value.name} />}
            <span class="drop">
              <svg viewBox="0 0 24 24" aria-hidden="true">
                <path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M4 16.5V19h16v-2.5" />
              </svg>
              {dragging.value ? "Let go to use it" : "Drop, paste or choose a picture"}
            </span>
          </button>
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
          {gallery && gallery.length > 0 && (
            <div class="thumbs" role="radiogroup" aria-label="Gallery">
              {gallery.map((entry) => {
                const one = galleryPicture(entry);
                return (
                  <label key={entry.file} class="thumb" title={entry.name}>
                    <input
                      type="radio"
                      name="start"
                      checked={picture.value?.url === one.url}
                      onChange={() => choose(entry)}
                    />
                    <img src={one.url} alt="" loading="lazy" />
                    <span>{entry.name}</span>
                  </label>
                );
              })}
            </div>
          )}
        </section>
        <form class="panel" onSubmit={submit}>
          <h1>
            Step into <br />a picture.
          </h1>
          <p class="lead">
            Every frame ahead of you is generated live as you walk. Choose where to begin, then take the keys.
          </p>
          <label class="field">
            <span>Prompt</span>
            <textarea
              rows={3}
              value={prompt.value}
              maxLength={2000}
              placeholder="What does the place look like?"
              onInput={(event) => {
                prompt.value = event.currentTarget.value;
                edited.value = prompt.value !== "";
              }}
            />
          </label>
          <div class="row">
            <label class="field seed">
              <span>Seed</span>
              <span class="joined">
                <input
                  inputMode="numeric"
                  value={seed.value}
                  onInput={(event) => (seed.value = event.currentTarget.value)}
                />
                <button
                  type="button"
                  aria-label="Random seed"
                  title="Random seed"
                  onClick={() => (seed.value = String(Math.floor(Math.random() * 100_000)))}
                >
                  <svg viewBox="0 0 24 24" aria-hidden="true">
                    <path d="M4 7h3.5c5 0 5.5 10 10.5 10H21m-3-3 3 3-3 3M4 17h3.5c1.7 0 2.9-1.1 3.8-2.6M21 7h-3c-1.7 0-2.9 1.1-3.8 2.600M18 4l3 3-3 3" />
                  </svg>
                </button>
              </span>
            </label>
            <fieldset class="field formats">
              <legend>Picture format</legend>
              <span class="joined">
                {OUTPUT_FORMATS.map((name) => (
                  <label key={name} title={FORMAT_HINTS[name]}>
                    <input
                      type="radio"
                      name="format"
                      checked={format.value === name}
                      onChange={() => (format.value = name)}
                    />
                    <span>{FORMAT_NAMES[name]}</span>
                  </label>
                ))}
              </span>
            </fieldset>
            <label class={`field quality ${format.value === "raw" ? "off" : ""}`}>
              <span>
                Quality <output>{format.value === "raw" ? "exact" : quality.value}</output>
              </span>
              <input
                type="range"
                min={40}
                max={100}
                value={quality.value}
                disabled={format.value === "raw"}
                onInput={(event) => (quality.value = Number(event.currentTarget.value))}
              />
            </label>
          </div>
          <button class="enter" type="submit" disabled={!picture.value}>
            Enter the world
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="M5 12h14m-6-6 6 6-6 6" />
            </svg>
          </button>
          {problem.value && (
            <p class="problem" role="alert">
              {problem.value}
            </p>
          )}
          <p class="fine">
            {toy
              ? "The pocket model is small enough for a laptop processor and learned from simple painted scenes. A photograph becomes a toy world at best."
              : "A photograph works best when it looks ahead, at eye height."}
            {model?.notice && ` ${model.notice}`}
          </p>
        </form>
      </main>
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
    </div>
  );
}
