import { useSignal } from "@preact/signals";
import { resumable } from "@worldline/client";
import { useEffect, useMemo } from "preact/hooks";

import { askFormats } from "../lib/formats";
import type { GalleryEntry } from "../lib/picture";
import { fetchGallery, fetchModel, fetchWorldFile, isReady, liveUrl, type ModelInfo } from "../lib/server";
import { Memory } from "../state/memory";
import { keepPreferences } from "../state/preferences";
import type { EnterRequest, Way } from "../state/request";
import { Walk } from "../state/walk";
import { AccessKey } from "./AccessKey";
import { Stage } from "./Stage";
import { Start } from "./Start";

export type ServerState = "unknown" | "ready" | "warming" | "away";

const POLL_MS = 3000;
const PROBE = "probe"; // an address with ?probe lets a script read what is measured
const WATCH = /^#watch=(.+)$/;
const BRANCH = /^#rejoin=(.+)$/; // a world that waits for who has this token
const FILE = "#world"; // the world that the server was started with

/** The start, kept as the visitor left it, and the stage over it while walking or watching. */
export function App() {
  const walk = useSignal<Walk | null>(null);
  const model = useSignal<ModelInfo | null>(null);
  const gallery = useSignal<readonly GalleryEntry[] | null>(null);
  const server = useSignal<ServerState>("unknown");
  const problem = useSignal<string | null>(null);
  const asksKey = useSignal(false);
  const memory = useMemo(() => new Memory(() => sessionStorage), []);
  const support = useMemo(askFormats, []);
  const preferences = useMemo(() => keepPreferences(() => localStorage), []);

  const begin = (way: Way): void => {
    const url = way.kind === "rejoin" ? way.url : liveUrl();
    problem.value = null;
    walk.value?.disconnect();
    const settings = { access: memory.access, preferences: preferences.value, support };
    const next = new Walk({ way, url, ...settings });
    walk.value = next;
    if (new URLSearchParams(location.search).has(PROBE)) {
      Object.assign(window, { __worldline: next.world.probe() });
    }
  };

  const enter = async (request: EnterRequest): Promise<void> => {
    try {
      const image = await request.picture.bytes();
      memory.place = request.place;
      begin({ kind: "enter", request, image });
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };

  const walkFile = async (): Promise<void> => {
    try {
      begin({ kind: "file", world: await fetchWorldFile() });
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };

  const walkInto = (world: Uint8Array): void => {
    walk.value?.leave();
    walk.value = null;
    forgetHash();
    begin({ kind: "file", world });
  };

  const leave = (): void => {
    walk.value?.leave();
    walk.value = null;
    asksKey.value = false;
    if (WATCH.test(location.hash) || location.hash === FILE) forgetHash();
  };

  const again = (): void => {
    const current = walk.value;
    if (!current) return;
    if (current.ending.value === null || current.ending.value.resumes) return current.retry();
    begin(current.way);
  };

  const open = (key: string): void => {
    memory.access = key;
    asksKey.value = false;
    if (walk.value) begin(walk.value.way);
  };

  useEffect(() => {
    const look = (): void => {
      const world = WATCH.exec(location.hash)?.[1];
      const token = BRANCH.exec(location.hash)?.[1];
      if (token) {
        forgetHash(); // it is a secret
        begin({ kind: "rejoin", token: decoded(token), url: liveUrl(), place: memory.place });
      } else if (world) begin({ kind: "watch", world: decoded(world) });
      else if (location.hash === FILE) void walkFile();
    };
    const last = resumable();
    if (WATCH.test(location.hash) || BRANCH.test(location.hash)) look();
    else if (last) begin({ kind: "rejoin", token: last.token, url: last.url, place: memory.place });
    else look();
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);

  // A refreshed page looks for its world; that it is gone is no failure of the visitor's.
  const gone = walk.value?.way.kind === "rejoin" && walk.value.ending.value;
  useEffect(() => {
    if (!gone || gone.resumes || gone.offer === "key") return;
    leave();
    problem.value = "The world you walked has ended. Choose where to begin again.";
  }, [gone]);

  useEffect(() => {
    let live = true;
    const look = async (): Promise<void> => {
      while (live) {
        const walking = walk.value !== null && walk.value.size.value !== null;
        if (!walking || model.value === null) {
          const ready = await isReady();
          model.value ??= await fetchModel(memory.access);
          if (!gallery.value?.length) gallery.value = await fetchGallery();
          server.value = ready ? "ready" : model.value ? "warming" : "away";
        }
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    };
    void look();
    return () => {
      live = false;
    };
  }, []);

  return (
    <>
      <div class="screen" hidden={walk.value !== null}>
        <Start
          model={model.value}
          gallery={gallery.value}
          server={server.value}
          support={support.value}
          problem={problem}
          preferences={preferences}
          enter={(request) => void enter(request)}
          walkInto={walkInto}
        />
      </div>
      {walk.value && (
        <Stage
          key={walk.value}
          walk={walk.value}
          model={model.value}
          warming={server.value === "warming"}
          gallery={gallery.value ?? []}
          preferences={preferences}
          support={support.value}
          again={again}
          leave={leave}
          walkInto={walkInto}
          giveKey={() => (asksKey.value = true)}
        />
      )}
      {asksKey.value && <AccessKey use={open} close={() => (asksKey.value = false)} />}
    </>
  );
}

/** As it was before it was put into an address; what nobody encoded stays as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Takes away what follows the # of the address: it was used, and would be used again by a refresh. */
function forgetHash(): void {
  history.replaceState(null, "", location.pathname + location.search);
}
