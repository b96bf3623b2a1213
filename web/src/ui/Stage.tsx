import { useSignal, type Signal } from "@preact/signals";
import type { Support } from "@worldline/client";
import { useEffect, useRef } from "preact/hooks";

import type { GalleryEntry } from "../lib/picture";
import type { ModelInfo } from "../lib/server";
import { listenShortcuts } from "../lib/shortcuts";
import { suggestions } from "../lib/suggestions";
import type { Preferences } from "../state/preferences";
import type { Walk } from "../state/walk";
import { Brand } from "./Brand";
import { Bring } from "./Bring";
import { CameraPath } from "./CameraPath";
import { Figures } from "./Figures";
import { KeysSheet } from "./KeysSheet";
import { Overlay } from "./Overlay";
import { Pads } from "./Pads";
import { PromptBar } from "./PromptBar";
import { SettingsDrawer } from "./SettingsDrawer";
import { Share } from "./Share";
import { Sticks } from "./Sticks";
import { savePicture, toggleFullscreen, toggleTimeline, Toolbar, type Sheet } from "./Toolbar";
import { Moment, Timeline } from "./Timeline";
import { ToastList } from "./ToastList";
import { Watching } from "./Watching";

interface Props {
  readonly walk: Walk;
  readonly model: ModelInfo | null;
  readonly warming: boolean;
  readonly gallery: readonly GalleryEntry[];
  readonly preferences: Signal<Preferences>;
  readonly support: Support;
  readonly again: () => void;
  readonly leave: () => void;
  readonly walkInto: (world: Uint8Array) => void;
  readonly giveKey: () => void;
}

const OFFERS = 4; // as many as fit beside each other

/** The walk: the picture fills the window, everything else keeps to its edges. */
export function Stage({ walk, model, warming, gallery, preferences, support, again, leave, walkInto, giveKey }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const ambient = useRef<HTMLCanvasElement>(null);
  const glass = useRef<HTMLDivElement>(null);
  const stage = useRef<HTMLElement>(null);
  const prompt = useRef<HTMLInputElement>(null);
  const bare = useSignal(false);
  const sheet = useSignal<Sheet | null>(null);
  const detailed = useSignal(false);

  useEffect(() => {
    stage.current?.focus();
    if (!canvas.current || !ambient.current || !glass.current) return undefined;
    return walk.attach(canvas.current, ambient.current, glass.current);
  }, [walk]);

  useEffect(() => {
    let before = preferences.value;
    return preferences.subscribe((now) => {
      if (now !== before) walk.prefer(now, before);
      before = now;
    });
  }, [walk]);

  useEffect(() => {
    const open = (name: Sheet) => (): void => {
      sheet.value = sheet.value === name ? null : name;
    };
    return listenShortcuts({
      KeyT: () => prompt.current?.focus(),
      KeyH: () => (bare.value = !bare.value),
      KeyF: () => void toggleFullscreen(),
      KeyG: () => (detailed.value = !detailed.value),
      KeyC: () => void savePicture(walk),
      KeyP: () => (walk.phase.value === "paused" ? walk.world.resume() : walk.world.pause()),
      KeyR: () => walk.world.record(walk.film.value?.phase !== "on"),
      KeyB: () => walk.world.reset(),
      KeyM: () => (walk.locked.value ? walk.world.hands.unlock() : void walk.world.hands.lock()),
      KeyV: open("path"),
      KeyY: () => toggleTimeline(preferences),
      Comma: open("settings"),
      Slash: open("keys"),
    });
  }, [walk]);

  const phase = walk.phase.value;
  const shown = walk.size.value !== null;
  const { spectator } = walk;
  useEffect(() => {
    document.title = title(phase, walk.queue.value?.position ?? null);
    return () => {
      document.title = "Worldline";
    };
  }, [phase, walk.queue.value]);

  // These words are those of the pocket worlds; a large model has its own idea of them.
  const known = model?.family === "pocket" ? gallery : [];
  const settled = phase === "live" || phase === "paused";
  const plays = phase === "live" && shown && !walk.recovering.value;
  const { looked, going } = walk.time;
  const elsewhere = phase === "paused" && (looked.value !== null || going.value?.number === null);
  const { timeline } = preferences.value;
  return (
    <main
      class={`stage ${phase} ${shown ? "shown" : ""} ${bare.value ? "bare" : ""} ${walk.locked.value ? "locked" : ""}`}
      ref={stage}
      tabIndex={-1}
      aria-label={spectator ? "Somebody's world" : "Your world"}
    >
      <h1 class="unseen">{spectator ? "Watching a world" : "Walking a world"}</h1>
      <canvas class="ambient" ref={ambient} width={20} height={12} aria-hidden="true" />
      <canvas class="view" ref={canvas} role="img" aria-label="The world, live" />
      <div class="glass" ref={glass} onDblClick={() => void walk.world.hands.lock()} />
      {settled && <Moment walk={walk} />}
      {walk.locked.value && <span class="reticle" aria-hidden="true" />}
      <header class="top">
        <Brand />
        {settled && <Figures walk={walk} model={model?.id ?? null} detailed={detailed} />}
        {settled && <Toolbar walk={walk} preferences={preferences} sheet={sheet} leave={leave} />}
      </header>
      {plays && walk.stalled.value && (
        <p class="stalled" role="status">
          <span class="spinner" aria-hidden="true" />
          Waiting for the server
        </p>
      )}
      <ToastList walk={walk} />
      {settled && (
        <div class="bottom">
          {spectator ? (
            <Watching walk={walk} />
          ) : (
            <>
              <Pads walk={walk} group="move" />
              <PromptBar
                walk={walk}
                offers={timeline ? [] : suggestions(known, walk.place.value, OFFERS)}
                above={timeline && <Timeline walk={walk} />}
                input={prompt}
                stage={stage}
                blend={preferences.value.promptBlend}
              />
              <Pads walk={walk} group="look" />
            </>
          )}
        </div>
      )}
      {phase === "live" && !spectator && <Sticks walk={walk} />}
      {!plays && !elsewhere && (
        <Overlay walk={walk} warming={warming} again={again} leave={leave} giveKey={giveKey} />
      )}
      {sheet.value === "settings" && (
        <SettingsDrawer
          preferences={preferences}
          support={support}
          spectator={spectator}
          close={() => (sheet.value = null)}
        />
      )}
      {sheet.value === "keys" && <KeysSheet close={() => (sheet.value = null)} />}
      {sheet.value === "path" && <CameraPath walk={walk} close={() => (sheet.value = null)} />}
      <Bring walk={walk} walkInto={walkInto} />
      {sheet.value === "share" && <Share walk={walk} close={() => (sheet.value = null)} />}
    </main>
  );
}

function title(phase: string, position: number | null): string {
  if (phase === "queued" && position !== null) return `(${position}) In line · Worldline`;
  return phase === "reconnecting" ? "Reconnecting · Worldline" : "Worldline";
}
