import { Dialog } from "./Dialog";

const GROUPS: readonly { readonly name: string; readonly rows: readonly (readonly [string, string])[] }[] = [
  {
    name: "Walk and look",
    rows: [
      ["W A S D", "walk"],
      ["Shift", "slowly, while it is held"],
      ["← ↑ ↓ →", "look"],
      ["I J K L", "look, too"],
      ["M", "look with the mouse (or double-click); Esc frees it"],
    ],
  },
  {
    name: "The world",
    rows: [
      ["T", "new prompt"],
      ["P", "pause and go on"],
      ["Y", "timeline: look back, walk on from there"],
      ["B", "back to the start"],
      ["R", "record"],
      ["C", "save a picture"],
      ["V", "camera path"],
    ],
  },
  {
    name: "The page",
    rows: [
      ["G", "all figures"],
      ["H", "hide the interface"],
      ["F", "full screen"],
      [",", "settings"],
      ["?", "this list"],
    ],
  },
];

/** Every key of the page. Keys go by their place, so other layouts find them where WASD would be. */
export function KeysSheet({ close }: { readonly close: () => void }) {
  return (
    <Dialog title="Keys" close={close}>
      <div class="keys">
        {GROUPS.map(({ name, rows }) => (
          <section key={name}>
            <h3>{name}</h3>
            <dl>
              {rows.map(([keys, words]) => (
                <div key={keys}>
                  <dt>
                    {keys.split(" ").map((key) => (
                      <kbd key={key}>{key}</kbd>
                    ))}
                  </dt>
                  <dd>{words}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <p class="fine">
        A gamepad: left stick walks, right stick looks. On a touch screen two thumbs are the sticks. Keys go by their place
        on the keyboard, whatever its letters.
      </p>
    </Dialog>
  );
}
