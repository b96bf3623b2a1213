import { useSignal } from "@preact/signals";

import { takeUrl } from "../lib/server";
import type { Toast } from "../state/toasts";
import type { Walk } from "../state/walk";
import { secondsUntil, useClock } from "./clock";
import { FileLink } from "./FileLink";
import { Icon } from "./Icon";

/** Under the top edge: announcements, refusals, who asks for the controls, the finished recording. */
export function ToastList({ walk }: { readonly walk: Walk }) {
  const denied = useSignal<readonly string[]>([]);
  const asking = (walk.control.value?.asking ?? []).filter((viewer) => !denied.value.includes(viewer));
  const mine = walk.control.value?.yours === true;
  return (
    <div class="toasts">
      <div class="toasts" role="log" aria-label="Announcements" aria-live="polite">
        {walk.toasts.list.value.map((toast) => (
          <Line key={toast.id} toast={toast} dismiss={() => walk.toasts.dismiss(toast.id)} />
        ))}
      </div>
      {mine &&
        asking.map((viewer) => (
          <section key={viewer} class="toast ask" role="alert">
            <Icon name="hand" />
            <p>A spectator asks for the controls.</p>
            <button type="button" class="enter small" onClick={() => void walk.world.giveControl(viewer)}>
              Hand over
            </button>
            <button
              type="button"
              class="plain small"
              onClick={() => (denied.value = [...denied.value, viewer])}
            >
              Not now
            </button>
          </section>
        ))}
      <Door walk={walk} />
      <Developed walk={walk} />
    </div>
  );
}

function Line({ toast, dismiss }: { readonly toast: Toast; readonly dismiss: () => void }) {
  return (
    <p class={`toast ${toast.tone}`}>
      <span>{toast.text}</span>
      {toast.until !== null && <Countdown until={toast.until} />}
      <button type="button" class="round" aria-label="Dismiss" onClick={dismiss}>
        <Icon name="close" />
      </button>
    </p>
  );
}

function Countdown({ until }: { readonly until: number }) {
  const seconds = secondsUntil(until, useClock(250));
  return (
    <b class="seconds" aria-live="off">
      {seconds >= 100 ? `${Math.round(seconds / 60)} min` : `${seconds} s`}
    </b>
  );
}

/** The way into a branch that the browser did not let the page open by itself. */
function Door({ walk }: { readonly walk: Walk }) {
  const { door } = walk.time;
  if (door.value === null) return null;
  const close = (): void => void (door.value = null);
  return (
    <section class="toast ask" role="alert">
      <Icon name="branch" />
      <p>The branch is ready.</p>
      <a class="enter small" href={door.value} target="_blank" rel="opener" onClick={() => setTimeout(close)}>
        Open it
      </a>
      <button type="button" class="round" aria-label="Dismiss" onClick={close}>
        <Icon name="close" />
      </button>
    </section>
  );
}

const FILES = [
  { file: "world.mp4", label: "Video" },
  { file: "poses.npy", label: "Camera path" },
  { file: "transforms.json", label: "For splats" },
  { file: null, label: "All" },
] as const;

/** A finished recording, until it is put away. */
function Developed({ walk }: { readonly walk: Walk }) {
  const film = walk.film.value;
  if (film?.phase !== "done") return null;
  return (
    <section class="toast film" aria-label="Recording">
      <p>
        Recorded <b>{film.seconds.toFixed(1)} s</b>
      </p>
      {FILES.map(({ file, label }) => (
        <FileLink
          key={label}
          walk={walk}
          url={takeUrl(film.url, file)}
          name={file ?? "worldline.zip"}
          what={label}
        >
          {label}
        </FileLink>
      ))}
      <button type="button" class="round" aria-label="Dismiss" onClick={() => (walk.film.value = null)}>
        <Icon name="close" />
      </button>
    </section>
  );
}
