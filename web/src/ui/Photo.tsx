import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { Dialog } from "./Dialog";
import { Icon } from "./Icon";

interface Props {
  readonly take: (photo: Blob) => void;
  readonly close: () => void;
}

/** True where a page may ask for the camera: a secure context on a device that has the interface. */
export const hasCamera = (): boolean => typeof navigator.mediaDevices?.getUserMedia === "function";

/** A picture from the camera: what it sees, a shutter, and the other camera of a phone. */
export function Photo({ take, close }: Props) {
  const video = useRef<HTMLVideoElement>(null);
  const facing = useSignal<"environment" | "user">("environment");
  const ready = useSignal(false);
  const problem = useSignal<string | null>(null);

  useEffect(() => {
    let stream: MediaStream | null = null;
    let gone = false;
    ready.value = false;
    const wanted = { video: { facingMode: facing.value, width: { ideal: 1280 }, height: { ideal: 768 } } };
    navigator.mediaDevices.getUserMedia(wanted).then(
      (found) => {
        if (gone) return found.getTracks().forEach((track) => track.stop());
        stream = found;
        if (video.current) video.current.srcObject = found;
      },
      (error: unknown) => (problem.value = refusal(error)),
    );
    return () => {
      gone = true;
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, [facing.value]);

  const shoot = async (): Promise<void> => {
    const seen = video.current;
    if (!seen || seen.videoWidth === 0) return;
    const canvas = document.createElement("canvas");
    canvas.width = seen.videoWidth;
    canvas.height = seen.videoHeight;
    canvas.getContext("2d")?.drawImage(seen, 0, 0);
    const photo = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
    if (photo) take(photo);
  };

  return (
    <Dialog title="Take a photo" close={close}>
      {problem.value ? (
        <p class="problem" role="alert">
          {problem.value}
        </p>
      ) : (
        <div class="viewfinder">
          <video
            ref={video}
            autoplay
            playsInline
            muted
            aria-label="What the camera sees"
            onLoadedData={() => (ready.value = true)}
          />
        </div>
      )}
      <p class="fine">Stand at eye height and look ahead. The photo leaves this device when you enter.</p>
      <div class="actions">
        <button type="button" class="enter small" disabled={!ready.value} onClick={() => void shoot()}>
          <Icon name="camera" />
          Take it
        </button>
        <button
          type="button"
          class="plain small"
          onClick={() => (facing.value = facing.value === "user" ? "environment" : "user")}
        >
          <Icon name="flip" />
          Other camera
        </button>
      </div>
    </Dialog>
  );
}

function refusal(error: unknown): string {
  const name = error instanceof Error ? error.name : "";
  if (name === "NotAllowedError") return "The browser was not allowed to use the camera.";
  if (name === "NotFoundError") return "No camera was found on this device.";
  if (name === "NotReadableError") return "The camera is used by another program.";
  return "The camera could not be started.";
}
