import type { Signal } from "@preact/signals";

import { OUTPUT_FORMATS, type OutputFormat } from "../lib/wire";

interface Props {
  readonly seed: Signal<string>;
  readonly format: Signal<OutputFormat>;
  readonly quality: Signal<number>;
}

const FORMAT_NAMES: Readonly<Record<OutputFormat, string>> = { jpeg: "JPEG", webp: "WebP", raw: "Raw" };
const FORMAT_HINTS: Readonly<Record<OutputFormat, string>> = {
  jpeg: "Fast, good on every network",
  webp: "Smaller, slower to encode",
  raw: "Exact pixels, for a fast network",
};

/** What a first visit does not need: the seed, and how pictures travel. */
export function Options({ seed, format, quality }: Props) {
  return (
    <div class="row" id="options">
      <label class="field seed">
        <span>Seed</span>
        <span class="joined">
          <input
            inputMode="numeric"
            value={seed.value}
            onInput={(event) => (seed.value = event.currentTarget.value)}
          />
          <button
            type="button"
            aria-label="Random seed"
            title="Random seed"
            onClick={() => (seed.value = String(Math.floor(Math.random() * 100_000)))}
          >
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <path d="M4 7h3.5c5 0 5.5 10 10.5 10H21m-3-3 3 3-3 3M4 17h3.5c1.7 0 2.9-1.1 3.8-2.6M21 7h-3c-1.7 0-2.9 1.1-3.8 2.600M18 4l3 3-3 3" />
            </svg>
          </button>
        </span>
      </label>
      <fieldset class="field formats">
        <legend>Picture format</legend>
        <span class="joined">
          {OUTPUT_FORMATS.map((name) => (
            <label key={name} title={FORMAT_HINTS[name]}>
              <input
                type="radio"
                name="format"
                checked={format.value === name}
                onChange={() => (format.value = name)}
              />
              <span>{FORMAT_NAMES[name]}</span>
            </label>
          ))}
        </span>
      </fieldset>
      <label class={`field quality ${format.value === "raw" ? "off" : ""}`}>
        <span>
          Quality <output>{format.value === "raw" ? "exact" : quality.value}</output>
        </span>
        <input
          type="range"
          min={40}
          max={100}
          value={quality.value}
          disabled={format.value === "raw"}
          onInput={(event) => (quality.value = Number(event.currentTarget.value))}
        />
      </label>
    </div>
  );
}
