import { useEffect, useRef } from "preact/hooks";

import type { Ending } from "../lib/words";
import type { Walk } from "../state/walk";
import { secondsUntil, useClock } from "./clock";
import { Icon } from "./Icon";

interface Props {
  readonly walk: Walk;
  readonly warming: boolean;
  readonly again: () => void;
  readonly leave: () => void;
  readonly giveKey: () => void;
}

/** Over the stage whenever it does not play: on the way in, in line, paused, cut off, at the end. */
export function Overlay(props: Props) {
  const { walk } = props;
  const phase = walk.phase.value;
  const walked = walk.size.value !== null; // its last frame stays visible behind
  const backdrop = walk.way.kind === "enter" ? walk.way.request.picture.url : null;
  return (
    <div class={`overlay ${phase} ${waits(walk) ? "waits" : ""} ${walked ? "walked" : ""}`}>
      {!walked && backdrop && <img class="backdrop" src={backdrop} alt="" />}
      <Words {...props} />
    </div>
  );
}

function Words({ walk, warming, again, leave, giveKey }: Props) {
  const phase = walk.phase.value;
  const ending = walk.ending.value;
  if (phase === "ended" && ending) return <End ending={ending} again={again} leave={leave} giveKey={giveKey} />;
  if (phase === "queued") return <Line walk={walk} leave={leave} />;
  if (phase === "reconnecting") return <Cut walk={walk} again={again} leave={leave} />;
  if (waits(walk)) return <Recovering walk={walk} />;
  if (phase === "paused") return <Paused walk={walk} />;
  return (
    <section class="opening">
      <span class="line" />
      <div role="status">
        <h2>{openingWords(walk, warming)}</h2>
      </div>
      <button type="button" class="plain" onClick={leave}>
        Cancel
      </button>
    </section>
  );
}

/** The world is there and its worker is not. */
function waits(walk: Walk): boolean {
  return walk.recovering.value && (walk.phase.value === "live" || walk.phase.value === "paused");
}

function Recovering({ walk }: { readonly walk: Walk }) {
  return (
    <section class="opening">
      <span class="line" />
      <div role="status">
        <h2>A short pause</h2>
        <p class="quiet">
          The model went down and is started again. {walk.spectator ? "This" : "Your"} world waits for it, and goes on
          where it was.
        </p>
      </div>
    </section>
  );
}

function openingWords(walk: Walk, warming: boolean): string {
  if (warming) return "The model is warming up";
  if (walk.phase.value === "connecting") return walk.way.kind === "rejoin" ? "Back to your world" : "Connecting";
  return walk.way.kind === "watch" ? "Looking in" : "Opening the world";
}

const MOST_DOTS = 8;

/** In line: the position as a number and as people, the visitor last. */
function Line({ walk, leave }: { readonly walk: Walk; readonly leave: () => void }) {
  const queue = walk.queue.value;
  const position = queue?.position ?? 1;
  const ahead = queue?.ahead ?? 0;
  return (
    <section class="inline" aria-label="In line">
      <p class="place" aria-hidden="true">
        {position}
        <sup>{ordinal(position)}</sup>
      </p>
      <div role="status">
        <h2>{position === 1 ? "You are next in line" : `You are ${position}${ordinal(position)} in line`}</h2>
      </div>
      <p class="dots" aria-hidden="true">
        {Array.from({ length: Math.min(position, MOST_DOTS) }, (_, i) => (
          <i key={i} class={i === Math.min(position, MOST_DOTS) - 1 ? "you" : ""} />
        ))}
      </p>
      <p class="quiet">
        {ahead > 0 ? `All places are taken and ${people(ahead)} before you. ` : "All places are taken. "}
        You walk in by yourself as soon as one is free.
      </p>
      <button type="button" class="plain" onClick={leave}>
        Leave the line
      </button>
    </section>
  );
}

const people = (count: number): string => (count === 1 ? "one visitor waits" : `${count} visitors wait`);

function ordinal(n: number): string {
  const tens = n % 100;
  if (tens >= 11 && tens <= 13) return "th";
  return ["th", "st", "nd", "rd"][n % 10] ?? "th";
}

interface CutProps {
  readonly walk: Walk;
  readonly again: () => void;
  readonly leave: () => void;
}

/** The connection broke: what happens next, and how long the server keeps the world. */
function Cut({ walk, again, leave }: CutProps) {
  const kept = walk.kept.value;
  const now = useClock(200);
  const left = kept?.until == null ? null : secondsUntil(kept.until, now);
  const next = kept?.nextAt == null ? null : secondsUntil(kept.nextAt, now);
  return (
    <section class="card" role="alertdialog" aria-labelledby="cut">
      <h2 id="cut">Connection lost</h2>
      <p class="quiet">
        {walk.opened.value === null ? "The way in is made again by itself." : <Waits left={walk.spectator ? null : left} />}
      </p>
      <p class="fine" role="status">
        <span class="spinner" aria-hidden="true" />
        {next !== null && next > 0 ? `Trying again in ${next} s` : "Trying to come back…"}
        {kept && kept.attempt > 1 && ` (attempt ${kept.attempt})`}
      </p>
      <div class="actions">
        <button type="button" class="enter small" onClick={again}>
          Reconnect now
        </button>
        <button type="button" class="plain small" onClick={leave}>
          Give it up
        </button>
      </div>
    </section>
  );
}

function Waits({ left }: { readonly left: number | null }) {
  if (left === null || left === 0) return <>The world stands still meanwhile.</>;
  return (
    <>
      Your world stands still and waits for you, another <b class="seconds">{left} s</b>. All keys are released.
    </>
  );
}

function Paused({ walk }: { readonly walk: Walk }) {
  const parked = walk.state.value === "parked";
  return (
    <section role="status">
      {walk.spectator ? (
        <h2>Paused</h2>
      ) : (
        <>
          <button type="button" class="big" aria-label="Go on" onClick={() => void walk.world.resume()}>
            <Icon name="play" />
          </button>
          <h2>{parked ? "Set aside while you were away" : "Paused"}</h2>
        </>
      )}
    </section>
  );
}

interface EndProps {
  readonly ending: Ending;
  readonly again: () => void;
  readonly leave: () => void;
  readonly giveKey: () => void;
}

function End({ ending, again, leave, giveKey }: EndProps) {
  const card = useRef<HTMLElement>(null);
  useEffect(() => card.current?.querySelector("button")?.focus(), []);
  const { offer } = ending;
  return (
    <section class="card" role="alertdialog" aria-labelledby="ending" aria-describedby="why" ref={card}>
      <h2 id="ending">{ending.title}</h2>
      <p class="quiet" id="why">
        {ending.detail}
      </p>
      <div class="actions">
        {offer === "again" && (
          <button type="button" class="enter small" onClick={again}>
            <Icon name="reset" />
            {ending.resumes ? "Try again" : "Begin again"}
          </button>
        )}
        {offer === "key" && (
          <button type="button" class="enter small" onClick={giveKey}>
            <Icon name="lock" />
            Give the key
          </button>
        )}
        <button type="button" class={offer === "start" ? "enter small" : "plain small"} onClick={leave}>
          Choose a start
        </button>
      </div>
      <p class="fine code">{ending.code}</p>
    </section>
  );
}
