import type { Signal } from "@preact/signals";

import type { Support } from "@worldline/client";

import { DEFAULTS, type Preferences } from "../state/preferences";
import { Dialog } from "./Dialog";
import { PictureOptions } from "./Options";
import { Switch } from "./Switch";

interface Props {
  readonly preferences: Signal<Preferences>;
  readonly support: Support;
  readonly spectator: boolean;
  readonly close: () => void;
}

/** Everything that can be set while walking; it holds at once and is kept in this browser. */
export function SettingsDrawer({ preferences, support, spectator, close }: Props) {
  const now = preferences.value;
  const set = (change: Partial<Preferences>): void => {
    preferences.value = { ...preferences.value, ...change };
  };
  return (
    <Dialog title="Settings" kind="drawer" close={close}>
      {!spectator && (
        <section class="group">
          <h3>Hands</h3>
          <Slide name="Camera speed" value={now.speed} range={[0.1, 1, 0.05]} words={percent} set={(speed) => set({ speed })} />
          <Slide
            name="Mouse sensitivity"
            value={now.sensitivity}
            range={[0.2, 3, 0.1]}
            words={(value) => `× ${value.toFixed(1)}`}
            set={(sensitivity) => set({ sensitivity })}
          />
          <Switch name="Invert looking up and down" on={now.invert} set={(invert) => set({ invert })} />
        </section>
      )}
      <section class="group">
        <h3>Picture</h3>
        {!spectator && (
          <Switch
            name="Timewarp"
            hint="Turns the last picture at once, until the true one arrives"
            on={now.timewarp}
            set={(timewarp) => set({ timewarp })}
          />
        )}
        <Switch
          name="Blend"
          hint="Softens the change when newer pictures replace waiting ones"
          on={now.blend}
          set={(blend) => set({ blend })}
        />
        <Slide
          name="Lead"
          value={now.lead}
          range={[0, 1000, 20]}
          words={(value) => (value === 0 ? "auto" : `${value} ms`)}
          set={(lead) => set({ lead })}
          hint="Video that waits before it is shown: more is smoother, less answers sooner"
        />
        <div class="stacked">
          <PictureOptions preferences={preferences} support={support} />
        </div>
      </section>
      {!spectator && (
        <section class="group">
          <h3>Prompts</h3>
          <Slide
            name="Blend a new prompt over"
            value={now.promptBlend}
            range={[0, 16, 1]}
            words={(value) => (value === 0 ? "at once" : value === 1 ? "1 chunk" : `${value} chunks`)}
            set={(promptBlend) => set({ promptBlend })}
          />
        </section>
      )}
      <button type="button" class="plain small" onClick={() => (preferences.value = DEFAULTS)}>
        As it came
      </button>
    </Dialog>
  );
}

const percent = (value: number): string => `${Math.round(100 * value)} %`;

interface SlideProps {
  readonly name: string;
  readonly value: number;
  readonly range: readonly [least: number, most: number, step: number];
  readonly words: (value: number) => string;
  readonly hint?: string;
  readonly set: (value: number) => void;
}

function Slide({ name, value, range: [min, max, step], words, hint, set }: SlideProps) {
  return (
    <label class="field">
      <span class="name">
        {name}
        <span class="value">{words(value)}</span>
      </span>
      <input
        type="range"
        min={min}
        max={max}
        step={step}
        value={value}
        aria-label={name}
        aria-valuetext={words(value)}
        onInput={(event) => set(Number(event.currentTarget.value))}
      />
      {hint && <span class="fine">{hint}</span>}
    </label>
  );
}
