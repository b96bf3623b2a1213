import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { KEY_ACTIONS } from "../lib/keys";
import type { GalleryEntry } from "../lib/picture";
import { suggestions } from "../lib/suggestions";
import type { World } from "../world";
import { Brand } from "./Brand";
import { Figures } from "./Figures";
import { Overlay } from "./Overlay";
import { Pads } from "./Pads";
import { PromptBar } from "./PromptBar";

interface Props {
  readonly world: World;
  readonly gallery: readonly GalleryEntry[];
  readonly leave: () => void;
}

const OFFERS = 4; // as many as fit beside each other

/** The walk: the picture fills the window, everything else keeps to its edges. */
export function Stage({ world, gallery, leave }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const ambient = useRef<HTMLCanvasElement>(null);
  const stage = useRef<HTMLDivElement>(null);
  const prompt = useRef<HTMLInputElement>(null);
  const bare = useSignal(false);

  useEffect(() => {
    if (!canvas.current || !ambient.current) return undefined;
    stage.current?.focus();
    return world.attach(canvas.current, ambient.current);
  }, [world]);

  useEffect(() => {
    const shortcuts: Readonly<Record<string, () => void>> = {
      KeyT: () => prompt.current?.focus(),
      KeyH: () => (bare.value = !bare.value),
      KeyF: () => void toggleFullscreen(),
    };
    return listen(world, shortcuts);
  }, [world]);

  const phase = world.phase.value;
  const hud = world.hud.value;
  // These words are those of the pocket worlds; a large model has its own idea of them.
  const known = world.request.model?.family === "pocket" ? gallery : [];
  return (
    <div class={`stage ${phase} ${bare.value ? "bare" : ""}`} ref={stage} tabIndex={-1}>
      <canvas class="ambient" ref={ambient} width={20} height={12} aria-hidden="true" />
      <canvas class="view" ref={canvas} role="img" aria-label="The world, live" />
      <header class="top">
        <Brand />
        <Figures hud={hud} model={world.request.model?.id ?? null} />
        <nav>
          <button type="button" title="Start again from the picture" onClick={() => void world.restart()}>
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="M5 12a7 7 0 1 0 2.2-5.1M7 3v4h4" />
            </svg>
            <span>Restart</span>
          </button>
          <button type="button" title="Leave this world" onClick={leave}>
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <rect x="6.5" y="6.5" width="11" height="11" rx="2" />
            </svg>
            <span>Stop</span>
          </button>
        </nav>
      </header>
      {phase === "live" && hud.stalled && (
        <p class="stalled" role="status">
          Waiting for the server
        </p>
      )}
      {world.notice.value && (
        <p class="notice" role="alert">
          {world.notice.value}
          <button type="button" aria-label="Dismiss" onClick={() => (world.notice.value = null)}>
            ×
          </button>
        </p>
      )}
      <div class="bottom">
        <Pads world={world} group="move" />
        <PromptBar
          world={world}
          offers={suggestions(known, world.place.value, OFFERS)}
          input={prompt}
          stage={stage}
        />
        <Pads world={world} group="look" />
      </div>
      {phase !== "live" && <Overlay world={world} leave={leave} />}
    </div>
  );
}

/** Binds the keyboard to the world until the returned function is called. */
function listen(world: World, shortcuts: Readonly<Record<string, () => void>>): () => void {
  const down = (event: KeyboardEvent): void => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = KEY_ACTIONS[event.code];
    const shortcut = shortcuts[event.code];
    if (!action && !shortcut) return;
    event.preventDefault(); // arrows must not scroll, T must not type into the box it opens
    if (event.repeat) return;
    if (action) world.input({ type: "press", source: event.code, action });
    else shortcut?.();
  };
  const up = (event: KeyboardEvent): void => {
    // Some systems report no key-up while Meta is held, so its own release frees everything.
    if (event.key === "Meta") world.input({ type: "release-all" });
    else world.input({ type: "release", source: event.code });
  };
  const release = (): void => world.input({ type: "release-all" });
  const hide = (): void => {
    if (document.hidden) release();
  };
  const focus = (event: FocusEvent): void => {
    if (typing(event.target)) release();
  };
  window.addEventListener("keydown", down);
  window.addEventListener("keyup", up);
  window.addEventListener("blur", release);
  window.addEventListener("pagehide", release);
  window.addEventListener("focusin", focus);
  document.addEventListener("visibilitychange", hide);
  return () => {
    window.removeEventListener("keydown", down);
    window.removeEventListener("keyup", up);
    window.removeEventListener("blur", release);
    window.removeEventListener("pagehide", release);
    window.removeEventListener("focusin", focus);
    document.removeEventListener("visibilitychange", hide);
  };
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}

async function toggleFullscreen(): Promise<void> {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen?.();
}
