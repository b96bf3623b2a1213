import type { Spread } from "../lib/meters";
import type { Hud } from "../world";

interface Props {
  readonly hud: Hud;
  readonly model: string | null;
}

/** What a figure knows beyond what it shows, for scripts that read the page. */
type Facts = Readonly<Record<`data-${string}`, number>>;

/** Measured figures only; a dash until there is a measurement. */
export function Figures({ hud, model }: Props) {
  return (
    <dl class="figures">
      <Figure
        name="fps"
        title={`Frames drawn per second, over two seconds. Longest pause so far: ${Math.round(hud.longestGapMs)} ms`}
        facts={{ "data-stalls": hud.stalls, "data-longest-ms": Math.round(hud.longestGapMs) }}
      >
        {hud.fps === null ? "–" : hud.fps.toFixed(1)}
      </Figure>
      <Figure name="chunk" title="Time the server needed for its newest chunk, without pacing waits" unit="ms">
        {hud.chunkMs === null ? "–" : String(Math.round(hud.chunkMs))}
      </Figure>
      <Figure name="latency" title={latencyTitle(hud.latency)} unit="ms" facts={latencyFacts(hud.latency)}>
        {hud.latencyMs === null ? "–" : String(Math.round(hud.latencyMs))}
      </Figure>
      <Figure name="size" title="Pixels of a generated frame">
        {hud.size ?? "–"}
      </Figure>
      {model && (
        <Figure name="model" title="The model that generates this world">
          {model}
        </Figure>
      )}
    </dl>
  );
}

function latencyTitle(spread: Spread | null): string {
  const what = "From your newest key press to the first frame that shows it";
  if (!spread) return what;
  const { count, median, p95 } = spread;
  return `${what}. Of ${count}: median ${Math.round(median)} ms, 95 % within ${Math.round(p95)} ms`;
}

function latencyFacts(spread: Spread | null): Facts {
  if (!spread) return {};
  const { count, median, p95 } = spread;
  return { "data-count": count, "data-median-ms": Math.round(median), "data-p95-ms": Math.round(p95) };
}

function Figure(props: { name: string; title: string; unit?: string; facts?: Facts; children: string }) {
  return (
    <div class={`figure ${props.name}`} title={props.title} {...props.facts}>
      <dt>{props.name}</dt>
      <dd>
        {props.children}
        {props.unit && props.children !== "–" && <small>{props.unit}</small>}
      </dd>
    </div>
  );
}
