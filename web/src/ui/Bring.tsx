import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { firstImage } from "../lib/picture";
import { isWorld, readWorld } from "../lib/worldfile";
import type { Walk } from "../state/walk";
import { Dialog } from "./Dialog";
import { Icon } from "./Icon";

interface Props {
  readonly walk: Walk;
  readonly walkInto: (world: Uint8Array) => void;
}

interface Brought {
  readonly name: string;
  readonly world: Uint8Array;
}

/** A saved world dropped onto a walk: nothing ends before the visitor has said so. */
export function Bring({ walk, walkInto }: Props) {
  const dragging = useSignal(false);
  const brought = useSignal<Brought | null>(null);

  useEffect(() => {
    const take = async (file: File | null): Promise<void> => {
      if (!file) return;
      try {
        if (!(await isWorld(file))) throw new Error("Only a saved world (.wl) can be dropped onto a walk.");
        brought.value = { name: file.name, world: await readWorld(file) };
      } catch (error) {
        walk.toasts.say(error instanceof Error ? error.message : String(error), { tone: "warning" });
      }
    };
    const over = (event: DragEvent): void => {
      event.preventDefault(); // else the browser leaves the page for the file
      dragging.value = event.dataTransfer?.types.includes("Files") === true;
    };
    const out = (event: DragEvent): void => {
      if (event.relatedTarget === null) dragging.value = false;
    };
    const drop = (event: DragEvent): void => {
      event.preventDefault();
      dragging.value = false;
      void take(firstImage(event.dataTransfer));
    };
    window.addEventListener("dragover", over);
    window.addEventListener("dragleave", out);
    window.addEventListener("drop", drop);
    return () => {
      window.removeEventListener("dragover", over);
      window.removeEventListener("dragleave", out);
      window.removeEventListener("drop", drop);
    };
  }, [walk]);

  const close = (): void => void (brought.value = null);
  const found = brought.value;
  return (
    <>
      {dragging.value && <p class="dropping">Let go to walk into this world</p>}
      {found && (
        <Dialog title="Walk into this world?" close={close}>
          <p class="quiet">
            <b class="filename">{found.name}</b>{" "}
            {walk.spectator
              ? "is a world of its own. You stop watching this one."
              : "is a world of its own. The one you walk now ends; save it first if you may want it back."}
          </p>
          <div class="actions">
            <button type="button" class="enter small" onClick={() => walkInto(found.world)}>
              Walk into it
            </button>
            {!walk.spectator && (
              <button
                type="button"
                class="plain small"
                disabled={walk.time.saving.value}
                onClick={() => void walk.time.save()}
              >
                <Icon name="download" />
                Save this world
              </button>
            )}
            <button type="button" class="plain small" onClick={close}>
              Stay here
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}
