import { useSignal } from "@preact/signals";

import { Dialog } from "./Dialog";

interface Props {
  readonly use: (key: string) => void;
  readonly close: () => void;
}

/** Asks for the key of a server that has one; it stays in this tab. */
export function AccessKey({ use, close }: Props) {
  const key = useSignal("");
  return (
    <Dialog title="The key of this server" close={close}>
      <form
        class="stacked"
        onSubmit={(event) => {
          event.preventDefault();
          if (key.value.trim()) use(key.value.trim());
        }}
      >
        <p class="quiet">Whoever runs this server gives it out. It is kept in this tab only and never put into the address.</p>
        <label class="field">
          <span class="name">Key or token</span>
          <span class="box">
            <input
              type="password"
              autocomplete="current-password"
              value={key.value}
              onInput={(event) => (key.value = event.currentTarget.value)}
            />
          </span>
        </label>
        <div class="actions">
          <button type="submit" class="enter small" disabled={key.value.trim() === ""}>
            Use this key
          </button>
        </div>
      </form>
    </Dialog>
  );
}
