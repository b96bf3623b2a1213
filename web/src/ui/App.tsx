import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { fetchGallery, fetchModel, isReady, type ModelInfo } from "../lib/server";
import type { GalleryEntry } from "../lib/picture";
import { World, type WalkRequest } from "../world";
import { Stage } from "./Stage";
import { Start } from "./Start";

export type ServerState = "unknown" | "ready" | "warming" | "away";

const POLL_MS = 3000;

/** Two screens: the start, kept as the visitor left it, and the stage over it while walking. */
export function App() {
  const world = useSignal<World | null>(null);
  const model = useSignal<ModelInfo | null>(null);
  const gallery = useSignal<readonly GalleryEntry[] | null>(null);
  const server = useSignal<ServerState>("unknown");

  useEffect(() => {
    let live = true;
    const look = async (): Promise<void> => {
      while (live) {
        if (!world.value) {
          const ready = await isReady();
          model.value ??= await fetchModel();
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

  const enter = (request: WalkRequest): void => {
    const next = new World(request);
    world.value = next;
    void next.start();
  };
  const leave = (): void => {
    void world.value?.stop();
    world.value = null;
  };

  return (
    <>
      <div class="screen" hidden={world.value !== null}>
        <Start model={model.value} gallery={gallery.value} server={server.value} enter={enter} />
      </div>
      {world.value && <Stage world={world.value} gallery={gallery.value ?? []} leave={leave} />}
    </>
  );
}
