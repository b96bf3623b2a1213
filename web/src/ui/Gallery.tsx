import type { ComponentChildren } from "preact";

import { galleryUrl, type GalleryEntry, type Picture } from "../lib/picture";

interface Props {
  readonly entries: readonly GalleryEntry[];
  readonly chosen: GalleryEntry | null;
  /** A picture of the visitor's own; `chosen` is null while it is the one. */
  readonly own: Picture | null;
  readonly choose: (entry: GalleryEntry) => void;
  readonly chooseOwn: () => void;
  /** The ways to bring a picture, beside the heading. */
  readonly children: ComponentChildren;
}

/** Where to begin, as tiles: one radio group (arrow keys, Enter) that scrolls sideways. */
export function Gallery({ entries, chosen, own, choose, chooseOwn, children }: Props) {
  return (
    <section class="worlds" aria-labelledby="where">
      <header>
        <h2 id="where">Where to begin</h2>
        {children}
      </header>
      <div class="tiles" role="radiogroup" aria-labelledby="where">
        {own && (
          <Tile key="own" name={own.name} src={own.url} checked={chosen === null} choose={chooseOwn} />
        )}
        {entries.map((entry) => (
          <Tile
            key={entry.file}
            name={entry.name}
            src={galleryUrl(entry.tile ?? entry.preview ?? entry.file)}
            checked={chosen === entry}
            choose={() => choose(entry)}
          />
        ))}
      </div>
    </section>
  );
}

interface TileProps {
  readonly name: string;
  readonly src: string;
  readonly checked: boolean;
  readonly choose: () => void;
}

function Tile({ name, src, checked, choose }: TileProps) {
  return (
    <label class="tile" title={name}>
      <input
        type="radio"
        name="start"
        checked={checked}
        onChange={choose}
        onFocus={(event) => event.currentTarget.parentElement?.scrollIntoView({ block: "nearest", inline: "nearest" })}
      />
      <img src={src} alt="" width={320} height={192} loading="lazy" decoding="async" />
      <span>{name}</span>
    </label>
  );
}
