import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { download, stamp } from "../lib/download";
import type { Preferences } from "../state/preferences";
import type { Walk } from "../state/walk";
import { useClock } from "./clock";
import { Icon, type IconName } from "./Icon";

export type Sheet = "settings" | "keys" | "share" | "path";

interface Props {
  readonly walk: Walk;
  readonly preferences: Signal<Preferences>;
  readonly sheet: Signal<Sheet | null>;
  readonly leave: () => void;
}

/** What can be done with the world as a whole. On a small window all but the first few fold away. */
export function Toolbar({ walk, preferences, sheet, leave }: Props) {
  const more = useSignal(false);
  const nav = useRef<HTMLElement>(null);
  const { world } = walk;
  const paused = walk.phase.value === "paused";
  const filming = walk.film.value?.phase === "on";
  const open = (name: Sheet) => (): void => {
    more.value = false;
    sheet.value = name;
  };
  useEffect(() => {
    if (!more.value) return undefined;
    const close = (event: Event): void => {
      const inside = event.target instanceof Node && nav.current?.contains(event.target);
      const escape = event instanceof KeyboardEvent && event.key === "Escape";
      if (escape || (!inside && event.type === "pointerdown")) more.value = false;
    };
    window.addEventListener("pointerdown", close);
    window.addEventListener("keydown", close);
    return () => {
      window.removeEventListener("pointerdown", close);
      window.removeEventListener("keydown", close);
    };
  }, [more.value]);
  return (
    <nav class={`tools ${more.value ? "open" : ""}`} aria-label="World" ref={nav}>
      {filming && <FilmTime walk={walk} />}
      {!walk.spectator && (
        <>
          <Tool
            icon={paused ? "play" : "pause"}
            name={paused ? "Go on" : "Pause"}
            hint="P"
            act={() => (paused ? world.resume() : world.pause())}
          />
          <Tool
            icon={filming ? "stop" : "record"}
            name={filming ? "End the recording" : "Record"}
            hint="R"
            active={filming}
            act={() => world.record(!filming)}
          />
        </>
      )}
      <span class="folding">
        <Tool icon="camera" name="Save a picture" hint="C" act={() => void savePicture(walk)} />
        {!walk.spectator && (
          <Tool
            icon="back"
            name="Timeline"
            hint="Y"
            pressed={preferences.value.timeline}
            act={() => {
              more.value = false;
              toggleTimeline(preferences);
            }}
          />
        )}
        {!walk.spectator && (
          <Tool icon="reset" name="Back to the start" hint="B" act={() => void world.reset()} />
        )}
        {!walk.spectator && (
          <Tool icon="mouse" name="Look with the mouse" hint="M" act={() => void world.hands.lock()} />
        )}
        {!walk.spectator && <Tool icon="path" name="Camera path" hint="V" act={open("path")} />}
        {!walk.spectator && <Tool icon="download" name="Save this world" act={() => void walk.time.save()} />}
        <Tool icon="share" name="Share" act={open("share")} />
        <Tool icon="full" name="Full screen" hint="F" act={() => void toggleFullscreen()} />
        <Tool icon="keys" name="Keys" hint="?" act={open("keys")} />
        <Tool icon="settings" name="Settings" hint="," act={open("settings")} />
      </span>
      <Tool
        icon="more"
        name="More"
        fold
        expanded={more.value}
        act={() => (more.value = !more.value)}
      />
      <Tool icon="close" name={walk.spectator ? "Stop watching" : "Leave"} act={leave} />
    </nav>
  );
}

interface ToolProps {
  readonly icon: IconName | "record";
  readonly name: string;
  readonly hint?: string;
  readonly active?: boolean;
  readonly expanded?: boolean;
  readonly pressed?: boolean;
  readonly fold?: boolean;
  readonly act: () => void;
}

function Tool({ icon, name, hint, active, expanded, pressed, fold, act }: ToolProps) {
  return (
    <button
      type="button"
      class={`tool ${fold ? "fold" : ""} ${icon === "record" || active ? "film" : ""}`}
      data-tool={icon}
      {...(expanded !== undefined && { "aria-expanded": expanded })}
      {...(pressed !== undefined && { "aria-pressed": pressed })}
      {...(hint !== undefined && { "aria-keyshortcuts": hint })}
      onClick={act}
    >
      {icon === "record" ? <i class="dot" /> : <Icon name={icon} />}
      <span class="tip">
        {name}
        {hint && <kbd aria-hidden="true">{hint}</kbd>}
      </span>
    </button>
  );
}

/** How long the recording runs; counted here, because the server says only when it ended. */
function FilmTime({ walk }: { readonly walk: Walk }) {
  const now = useClock(1000);
  const film = walk.film.value;
  const seconds = film?.phase === "on" ? Math.max(0, Math.floor((now - film.since) / 1000)) : 0;
  return (
    <span class="filming" role="timer" aria-label="Recording">
      <i />
      {Math.floor(seconds / 60)}:{String(seconds % 60).padStart(2, "0")}
    </span>
  );
}

/** The newest picture as a PNG in the visitor's downloads. */
export async function savePicture(walk: Walk): Promise<void> {
  try {
    const picture = await walk.screenshot();
    download(picture, `worldline-${stamp(new Date())}.png`);
    walk.toasts.say("The picture is in your downloads.");
  } catch {
    walk.toasts.say("There is no picture yet.", { tone: "warning" });
  }
}

export function toggleTimeline(preferences: Signal<Preferences>): void {
  preferences.value = { ...preferences.value, timeline: !preferences.value.timeline };
}

export async function toggleFullscreen(): Promise<void> {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.documentElement.requestFullscreen?.();
}
