import type { Hud } from "../world";

interface Props {
  readonly hud: Hud;
  readonly model: string | null;
}

/** Measured figures only; a dash until there is a measurement. */
export function Figures({ hud, model }: Props) {
  return (
    <dl class="figures">
      <Figure name="fps" title="Frames drawn per second, over two seconds">
        {hud.fps === null ? "–" : hud.fps.toFixed(1)}
      </Figure>
      <Figure name="chunk" title="Time the server needed for its newest chunk, without pacing waits" unit="ms">
        {hud.chunkMs === null ? "–" : String(Math.round(hud.chunkMs))}
      </Figure>
      <Figure name="latency" title="From your newest key press to the first frame that shows it" unit="ms">
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

function Figure(props: { name: string; title: string; unit?: string; children: string }) {
  return (
    <div class={`figure ${props.name}`} title={props.title}>
      <dt>{props.name}</dt>
      <dd>
        {props.children}
        {props.unit && props.children !== "–" && <small>{props.unit}</small>}
      </dd>
    </div>
  );
}
