import { galleryUrl, type GalleryEntry, type Picture } from "../lib/picture";

interface Props {
  readonly entries: readonly GalleryEntry[];
  readonly chosen: GalleryEntry | null;
  /** A picture of the visitor's own, when that is what is chosen. */
  readonly own: Picture | null;
  readonly ownFirst: boolean;
  readonly choose: (entry: GalleryEntry) => void;
  readonly bring: () => void;
}

/** Where to begin, as tiles: one radio group (arrow keys, Enter) and a button for an own picture. */
export function Gallery({ entries, chosen, own, ownFirst, choose, bring }: Props) {
  const ownTile = (
    <button type="button" class={`tile own ${own ? "chosen" : ""}`} onClick={bring} key="own">
      {own ? (
        <img src={own.url} alt="" />
      ) : (
        <svg viewBox="0 0 24 24" aria-hidden="true">
          <path d="M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M4 16.5V19h16v-2.5" />
        </svg>
      )}
      <span>{own ? own.name : "Your own picture"}</span>
    </button>
  );
  return (
    <section class="worlds" aria-label="Where to begin">
      {ownFirst && ownTile}
      <div class="tiles" role="radiogroup" aria-label="Gallery">
        {entries.map((entry) => (
          <label key={entry.file} class="tile" title={entry.name}>
            <input type="radio" name="start" checked={chosen === entry} onChange={() => choose(entry)} />
            <img
              src={galleryUrl(entry.tile ?? entry.preview ?? entry.file)}
              alt=""
              width={320}
              height={192}
              loading="lazy"
              decoding="async"
            />
            <span>{entry.name}</span>
          </label>
        ))}
      </div>
      {!ownFirst && ownTile}
    </section>
  );
}
