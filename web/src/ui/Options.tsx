import type { Signal } from "@preact/signals";
import type { Support } from "@worldline/client";

import { QUALITIES, type FormatChoice, type Preferences, type Transport } from "../state/preferences";
import { Icon } from "./Icon";

const FORMATS: readonly { readonly value: FormatChoice; readonly name: string; readonly hint: string }[] = [
  { value: "auto", name: "Auto", hint: "The best that this server and this browser share" },
  { value: "h264", name: "H.264", hint: "Video: a tenth of the bytes" },
  { value: "jpeg", name: "JPEG", hint: "Pictures: good on every network" },
  { value: "webp", name: "WebP", hint: "Pictures: smaller, slower to encode" },
  { value: "raw", name: "Raw", hint: "Exact pixels, for a fast network" },
];

const TRANSPORTS: readonly { readonly value: Transport; readonly name: string; readonly hint: string }[] = [
  { value: "websocket", name: "WebSocket", hint: "One connection for everything: works everywhere" },
  { value: "webrtc", name: "WebRTC", hint: "For networks that lose packets, where the server has it" },
];

interface PictureProps {
  readonly preferences: Signal<Preferences>;
  readonly support: Support;
}

/** How pictures travel: for the start and, while walking, for the settings. */
export function PictureOptions({ preferences, support }: PictureProps) {
  const { format, quality } = preferences.value;
  const set = (change: Partial<Preferences>): void => {
    preferences.value = { ...preferences.value, ...change };
  };
  const hint = FORMATS.find((one) => one.value === format)?.hint;
  return (
    <>
      <fieldset class="field qualities">
        <legend>Quality</legend>
        <span class="choice">
          {QUALITIES.map(({ value, name }) => (
            <label key={value}>
              <input
                type="radio"
                name="quality"
                checked={quality === value}
                disabled={format === "raw"}
                onChange={() => set({ quality: value })}
              />
              <span>{name}</span>
            </label>
          ))}
        </span>
      </fieldset>
      <fieldset class="field formats">
        <legend>Picture format</legend>
        <span class="choice">
          {FORMATS.map(({ value, name, hint }) => (
            <label key={value} title={value === "h264" ? (support.reason ?? hint) : hint}>
              <input
                type="radio"
                name="format"
                checked={format === value}
                disabled={value !== "auto" && !support.formats.includes(value)}
                onChange={() => set({ format: value })}
              />
              <span>{name}</span>
            </label>
          ))}
        </span>
      </fieldset>
      <p class="fine">{support.reason ?? hint}</p>
    </>
  );
}

interface Props extends PictureProps {
  readonly seed: Signal<string>;
}

/** What a first visit does not need: the seed, and how pictures travel. */
export function Options({ seed, preferences, support }: Props) {
  return (
    <div class="options" id="options">
      <div class="field seed">
        <label class="name" for="seed">
          Seed
        </label>
        <span class="box">
          <input
            id="seed"
            inputMode="numeric"
            autocomplete="off"
            value={seed.value}
            onInput={(event) => (seed.value = event.currentTarget.value)}
          />
          <button
            type="button"
            aria-label="Random seed"
            title="Random seed"
            onClick={() => (seed.value = String(Math.floor(Math.random() * 100_000)))}
          >
            <Icon name="dice" />
          </button>
        </span>
      </div>
      <PictureOptions preferences={preferences} support={support} />
      <fieldset class="field ways">
        <legend>Transport</legend>
        <span class="choice">
          {TRANSPORTS.map(({ value, name, hint }) => (
            <label key={value} title={hint}>
              <input
                type="radio"
                name="transport"
                checked={preferences.value.transport === value}
                onChange={() => (preferences.value = { ...preferences.value, transport: value })}
              />
              <span>{name}</span>
            </label>
          ))}
        </span>
      </fieldset>
    </div>
  );
}
