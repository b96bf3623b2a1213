import { useSignal } from "@preact/signals";
import { readPath, writePath, type Path } from "@worldline/client";
import { useEffect, useRef } from "preact/hooks";

import { download, stamp } from "../lib/download";
import type { Walk } from "../state/walk";
import { Dialog } from "./Dialog";
import { Icon } from "./Icon";
import { Switch } from "./Switch";

interface Props {
  readonly walk: Walk;
  readonly close: () => void;
}

/** Paths of the camera: recorded by walking or read from a file; walked again, looped, saved. */
export function CameraPath({ walk, close }: Props) {
  const recorder = walk.world.recorder();
  const recording = useSignal(recorder.recording.value);
  const loop = useSignal(false);
  const problem = useSignal<string | null>(null);
  const file = useRef<HTMLInputElement>(null);
  const path = walk.path.value;
  useEffect(() => recorder.recording.subscribe((on) => (recording.value = on)), [recorder]);

  const record = (): void => {
    problem.value = null;
    if (!recording.value) {
      recorder.start();
      walk.toasts.say("Your way is recorded. Open the camera path again (V) to end it.");
      close();
      return;
    }
    const walked = recorder.stop();
    if (walked.poses.length < 2) problem.value = "That way was too short.";
    else walk.path.value = walked;
  };

  const take = async (chosen: File | undefined): Promise<void> => {
    if (!chosen) return;
    try {
      walk.path.value = readPath(new Uint8Array(await chosen.arrayBuffer()));
      problem.value = null;
    } catch (error) {
      problem.value = error instanceof Error ? error.message : String(error);
    }
  };

  const play = (way: Path): void => {
    walk.world.play(way, { loop: loop.value });
    close();
  };

  return (
    <Dialog title="Camera path" close={close}>
      <p class="quiet">Walk a way once and let the camera walk it again, or bring one as poses.npy.</p>
      {problem.value && (
        <p class="problem" role="alert">
          {problem.value}
        </p>
      )}
      <div class="actions">
        <button type="button" class={recording.value ? "enter small" : "plain small"} onClick={record}>
          <Icon name={recording.value ? "stop" : "path"} />
          {recording.value ? "End it here" : "Record my way"}
        </button>
        <button type="button" class="plain small" onClick={() => file.current?.click()}>
          <Icon name="upload" />
          Open a file
        </button>
      </div>
      {path && (
        <>
          <p class="fine" role="status">
            {path.poses.length} poses, {(path.poses.length / path.rate).toFixed(1)} s
          </p>
          <Switch name="Begin again at its end" on={loop.value} set={(on) => (loop.value = on)} />
          <div class="actions">
            <button type="button" class="enter small" onClick={() => play(path)}>
              <Icon name="play" />
              Walk it
            </button>
            <button
              type="button"
              class="plain small"
              onClick={() => download(new Blob([writePath(path)]), `worldline-${stamp(new Date())}-poses.npy`)}
            >
              <Icon name="download" />
              Save poses.npy
            </button>
            <button type="button" class="plain small" onClick={() => void walk.world.release()}>
              <Icon name="stop" />
              Stop
            </button>
          </div>
        </>
      )}
      <input
        ref={file}
        class="file"
        type="file"
        accept=".npy"
        tabIndex={-1}
        aria-label="Path file"
        onChange={(event) => {
          void take(event.currentTarget.files?.[0]);
          event.currentTarget.value = "";
        }}
      />
    </Dialog>
  );
}
