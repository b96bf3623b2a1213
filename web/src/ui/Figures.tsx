import type { Signal } from "@preact/signals";
import { PARTS } from "@worldline/client";
import type { ComponentChildren } from "preact";

import { takeUrl } from "../lib/server";
import type { Walk } from "../state/walk";
import { FileLink } from "./FileLink";
import { Icon } from "./Icon";

interface Props {
  readonly walk: Walk;
  readonly model: string | null;
  readonly detailed: Signal<boolean>;
}

/** Two figures that are always there, and everything that is measured when they are opened. */
export function Figures({ walk, model, detailed }: Props) {
  const { fps, latency, stalls, longestGapMs } = walk.figures.value;
  return (
    <div class={`hud ${detailed.value ? "open" : ""}`}>
      <button
        type="button"
        class="figures"
        aria-expanded={detailed.value}
        aria-keyshortcuts="G"
        onClick={() => (detailed.value = !detailed.value)}
      >
        <span class="figure fps" data-stalls={stalls} data-longest-ms={Math.round(longestGapMs)}>
          <b>{fps?.toFixed(1) ?? "–"}</b> fps
        </span>
        <span
          class="figure latency"
          data-count={latency?.count ?? 0}
          data-median-ms={Math.round(latency?.p50 ?? 0)}
          data-p95-ms={Math.round(latency?.p95 ?? 0)}
        >
          <b>{latency ? Math.round(latency.last) : "–"}</b> ms
        </span>
        <span class="unseen">{detailed.value ? "fewer figures" : "all figures"}</span>
        <Icon name="chevron" />
      </button>
      {detailed.value && <Details walk={walk} model={model} />}
    </div>
  );
}

function Details({ walk, model }: { readonly walk: Walk; readonly model: string | null }) {
  const { latency, parts, ...rest } = walk.figures.value;
  const known = PARTS.flatMap((key) => {
    const spread = parts[key];
    const name = key === "client" ? "browser" : key;
    return spread ? [{ key, name, ms: spread.p50 }] : [];
  });
  const total = known.reduce((sum, { ms }) => sum + ms, 0);
  const decoder = walk.decoder.value;
  const size = walk.opened.value;
  return (
    <section class="details" aria-label="All figures" tabIndex={0}>
      <header>
        <h2>Hand to eye</h2>
        <p class="pair">
          <span>
            <b>{latency ? Math.round(latency.p50) : "–"}</b> p50
          </span>
          <span>
            <b>{latency ? Math.round(latency.p95) : "–"}</b> p95
          </span>
          <span>
            <b>{latency ? Math.round(latency.p99) : "–"}</b> p99
          </span>
        </p>
      </header>
      <Spark values={walk.history.value} />
      {known.length > 0 ? (
        <>
          <div class="bar" aria-hidden="true">
            {known.map(({ key, ms }) => (
              <i key={key} class={key} style={{ flexGrow: String(Math.max(ms, total / 200)) }} />
            ))}
          </div>
          <dl class="parts">
            {known.map(({ key, name, ms }) => (
              <div key={key}>
                <dt>
                  <i class={key} aria-hidden="true" />
                  {name}
                </dt>
                <dd>{ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms</dd>
              </div>
            ))}
          </dl>
        </>
      ) : (
        <p class="fine">Press a key: its way is measured part by part.</p>
      )}
      <dl class="rows">
        <Row name="Frames">
          {rest.fps?.toFixed(1) ?? "–"} of {rest.targetFps ?? "–"} a second
        </Row>
        <Row name="Stalls">
          {rest.stalls}
          {rest.stalls > 0 && ` · longest ${Math.round(rest.longestGapMs)} ms`}
        </Row>
        <Row name="Lead">
          {Math.round(rest.leadMs)} ms · {rest.dropped} dropped
        </Row>
        {rest.chunkMs !== null && (
          <Row name="Chunk">
            {Math.round(rest.chunkMs)} ms
            {rest.realTimeFactor !== null && ` · ${rest.realTimeFactor.toFixed(2)} of its playing time`}
          </Row>
        )}
        <Row name="Deadlines missed">{rest.misses}</Row>
        {rest.levers.length > 0 && <Row name="Saving by">{rest.levers.join(", ")}</Row>}
        <Row name="Picture">
          {decoder ? `${decoder.format} · ` : ""}
          {size ? `${size.width} × ${size.height} · ` : ""}
          {Math.round(rest.kbps ?? 0)} kbit/s
        </Row>
        {rest.rttMs !== null && <Row name="Round trip">{rest.rttMs.toFixed(1)} ms</Row>}
        {model && <Row name="Model">{model}</Row>}
      </dl>
      {!walk.spectator && <Trace walk={walk} />}
      {decoder?.reason && <p class="fine">{decoder.reason}</p>}
    </section>
  );
}

/** A Chrome trace of this session, for whoever looks into where the time goes. */
function Trace({ walk }: { readonly walk: Walk }) {
  const { trace, tracing } = walk;
  const url = trace.value;
  return (
    <div class="actions">
      <button type="button" class="plain small" onClick={() => void walk.world.trace(!tracing.value)}>
        {tracing.value ? "End the trace" : "Trace"}
      </button>
      {url !== null && (
        <FileLink walk={walk} url={takeUrl(url, null)} name="worldline-trace.json" what="The trace">
          Save it
        </FileLink>
      )}
    </div>
  );
}

function Row({ name, children }: { readonly name: string; readonly children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

const WIDTH = 300;
const HEIGHT = 44;

/** The newest inputs as a line, from zero to the slowest of them. */
function Spark({ values }: { readonly values: readonly number[] }) {
  if (values.length < 2) return null;
  const most = Math.max(...values);
  const points = values.map((value, i) => {
    const x = (i / (values.length - 1)) * WIDTH;
    return `${x.toFixed(1)},${(HEIGHT - 3 - (value / most) * (HEIGHT - 8)).toFixed(1)}`;
  });
  const line = points.join(" ");
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0,${HEIGHT} ${line} ${WIDTH},${HEIGHT}`} />
      <polyline points={line} />
    </svg>
  );
}
