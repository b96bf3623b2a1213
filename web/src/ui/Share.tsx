import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";

import { watchUrl } from "../lib/server";
import type { Walk } from "../state/walk";
import { Dialog } from "./Dialog";
import { Icon } from "./Icon";

/** The address under which others see this world, live. It opens no controls and holds no secret. */
export function Share({ walk, close }: { readonly walk: Walk; readonly close: () => void }) {
  const copied = useSignal(false);
  const field = useRef<HTMLInputElement>(null);
  const world = walk.seat.value?.world;
  const address = world === undefined ? "" : watchUrl(world);
  const viewers = walk.control.value?.viewers ?? 1;
  const copy = async (): Promise<void> => {
    field.current?.select();
    try {
      await navigator.clipboard.writeText(address);
      copied.value = true;
    } catch {
      copied.value = document.execCommand("copy"); // no clipboard on a page that is not secure
    }
  };
  return (
    <Dialog title="Let others look" close={close}>
      <p class="quiet">
        Whoever opens this address sees what you see, live, and can ask you for the controls. It leads nowhere once this
        world has ended.
      </p>
      <div class="field">
        <span class="name">
          <label for="address">Address</label>
          <span class="value">{viewers === 1 ? "only you are looking" : `${viewers} are looking`}</span>
        </span>
        <span class="box">
          <input id="address" ref={field} readOnly value={address} onFocus={(event) => event.currentTarget.select()} />
          <button type="button" aria-label="Copy the address" onClick={() => void copy()}>
            <Icon name={copied.value ? "check" : "copy"} />
          </button>
        </span>
      </div>
      <p class="fine" role="status">
        {copied.value ? "Copied." : local(address) ? "This address works on this machine only." : ""}
      </p>
      {typeof navigator.share === "function" && (
        <div class="actions">
          <button
            type="button"
            class="enter small"
            onClick={() => void navigator.share({ title: "A world, live", url: address }).catch(() => undefined)}
          >
            <Icon name="share" />
            Share…
          </button>
        </div>
      )}
      {!walk.spectator && (
        <section class="handing" aria-labelledby="handing">
          <h3 id="handing">Or hand it over</h3>
          <p class="quiet">
            A small file holds the whole walk. Dropped on this page, it is walked again just as you walked it, until
            somebody takes the keys.
          </p>
          <div class="actions">
            <button
              type="button"
              class="plain small"
              disabled={walk.time.saving.value}
              onClick={() => void walk.time.save()}
            >
              <Icon name="download" />
              Save this world
            </button>
          </div>
        </section>
      )}
    </Dialog>
  );
}

const local = (address: string): boolean => /^https?:\/\/(localhost|127\.|\[::1\])/.test(address);
