import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { agoWords, clockWords, momentAt, shareOf, strip } from "../lib/filmstrip";
import type { Walk } from "../state/walk";
import { Icon } from "./Icon";

const CELL = 62; // CSS pixels, at least
const DRAG = 5; // CSS pixels: less is a tap, which only looks
const LEAP = 10; // moments

/** The walk so far as a strip of film: drag back and let go to walk on from there; a tap only looks. */
export function Timeline({ walk }: { readonly walk: Walk }) {
  const { time } = walk;
  const moments = time.moments.value;
  const count = moments.length;
  const looked = time.looked.value;
  const going = time.going.value;
  const arrived = walk.phase.value === "paused" && going?.number != null; // no picture comes before it goes on
  const index = looked ? moments.indexOf(looked) : count;
  const film = useRef<HTMLDivElement>(null);
  const room = useSignal(1);
  const drag = useRef<{ readonly from: number; moved: boolean } | null>(null);
  const dragging = useSignal(false);

  useEffect(() => {
    const element = film.current;
    if (!element) return undefined;
    const measure = (): void => void (room.value = Math.max(1, Math.floor(element.clientWidth / CELL)));
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => () => void (time.looked.value = null), [time]); // put away, it shows nothing

  const { cells, filled } = strip(count, room.value);
  const needle = shareOf(index, filled, count);
  const newest = moments.at(-1)?.seconds ?? 0;

  const lookAt = (event: PointerEvent): void => {
    const box = film.current?.getBoundingClientRect();
    if (box) time.look(momentAt((event.clientX - box.left) / box.width, filled, count));
  };
  const cancel = (): void => {
    drag.current = null;
    dragging.value = false;
    time.looked.value = null;
  };
  const down = (event: PointerEvent): void => {
    if (event.button !== 0 || count === 0) return;
    film.current?.setPointerCapture(event.pointerId);
    drag.current = { from: event.clientX, moved: false };
    dragging.value = true;
    lookAt(event);
  };
  const move = (event: PointerEvent): void => {
    if (!drag.current) return;
    drag.current.moved ||= Math.abs(event.clientX - drag.current.from) > DRAG;
    lookAt(event);
  };
  const up = (event: PointerEvent): void => {
    const held = drag.current;
    if (!held) return;
    lookAt(event);
    drag.current = null;
    dragging.value = false;
    if (held.moved) time.goBack();
  };
  const key = (event: KeyboardEvent): void => {
    const to = target(event.key, index, count);
    if (to !== null) time.look(Math.min(count, Math.max(0, to)));
    else if (event.key === "Enter" && looked) time.goBack();
    else if (event.key === "Escape") cancel();
    else return;
    event.preventDefault();
    event.stopPropagation(); // the arrows turn nobody's head here
  };

  const at = looked && `${clockWords(looked.seconds)}, ${agoWords(newest - looked.seconds)}`;
  return (
    <section class={`timeline ${looked ? "looking" : ""}`} aria-label="Timeline">
      <header>
        <p>
          {going && arrived ? (
            <>
              <b>{clockWords(going.to.seconds)}</b> here it goes on
            </>
          ) : going ? (
            <>
              <span class="spinner" aria-hidden="true" />
              Back to {clockWords(going.to.seconds)}
            </>
          ) : looked ? (
            <>
              <b>{clockWords(looked.seconds)}</b> {agoWords(newest - looked.seconds)}
            </>
          ) : (
            <span class="fine">{count === 0 ? "The first moment is on its way" : "Drag back to walk on from there"}</span>
          )}
        </p>
        {looked && !dragging.value && (
          <button type="button" class="enter small" onClick={() => time.goBack()}>
            <span>
              Walk on<span class="more"> from here</span>
            </span>
          </button>
        )}
        {!dragging.value && (
          <button
            type="button"
            class="plain small"
            title="A second world that begins here, in another tab; this one stays"
            disabled={time.branching.value || count === 0}
            onClick={() => void time.branch()}
          >
            <Icon name="branch" />
            <span>Branch{looked && <span class="more"> here</span>}</span>
          </button>
        )}
        {looked && !dragging.value && (
          <button type="button" class="round" aria-label="Back to now" onClick={cancel}>
            <Icon name="close" />
          </button>
        )}
      </header>
      <div
        ref={film}
        class="film-strip"
        role="slider"
        tabIndex={0}
        aria-label="Moments of this walk"
        aria-orientation="horizontal"
        aria-valuemin={0}
        aria-valuemax={count}
        aria-valuenow={index}
        aria-valuetext={at ?? "now"}
        onPointerDown={down}
        onPointerMove={move}
        onPointerUp={up}
        onPointerCancel={cancel}
        onKeyDown={key}
      >
        {cells.map((cell) => (
          <img
            key={moments[cell]?.chunk}
            class={cell > index ? "after" : ""}
            src={moments[cell]?.url}
            alt=""
            draggable={false}
            style={{ width: `${100 / room.value}%` }}
          />
        ))}
        {count > 0 && <i class="needle" style={{ left: `${100 * needle}%` }} aria-hidden="true" />}
      </div>
    </section>
  );
}

/** Where a key leads: an index, at most one beyond the last moment; null for other keys. */
function target(key: string, index: number, count: number): number | null {
  if (key === "ArrowLeft" || key === "ArrowDown") return index - 1;
  if (key === "ArrowRight" || key === "ArrowUp") return index + 1;
  if (key === "PageDown") return index - LEAP;
  if (key === "PageUp") return index + LEAP;
  if (key === "Home") return 0;
  return key === "End" ? count : null;
}

/** The moment that is looked at, or gone back to, over the picture. */
export function Moment({ walk }: { readonly walk: Walk }) {
  const { looked, going } = walk.time;
  const shown = looked.value ?? going.value?.to ?? null;
  const size = walk.size.value;
  if (!shown || !size) return null;
  return (
    <div class="moment" style={{ "--ratio": String(size.width / size.height) }}>
      <img src={shown.url} alt={`The walk at ${clockWords(shown.seconds)}`} data-chunk={shown.chunk} />
    </div>
  );
}
