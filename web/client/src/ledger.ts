/**
 * From hand to photon: when each input was made, sent, received, sampled, and when the first frame that
 * shows it was encoded, received, decoded and painted. All times are local ms; those of the server are
 * carried over by the synchronised clock, so the parts add up to the whole.
 */

import type { Input } from "./inputs.js";
import { Samples, type Spread } from "./meters.js";
import type { Applied, Chunk, Received } from "./protocol.js";

/** The parts of the way, in order. `display` is an estimate: the time to the next refresh. */
export const PARTS = [
  "inbox", // hand to server
  "wait", // until the next chunk sampled it
  "denoise",
  "decode", // and what else the model does
  "encode",
  "network",
  "client", // decoding here
  "queue", // until its turn to be painted
  "display",
] as const;
export type Part = (typeof PARTS)[number];

export interface InputRecord {
  readonly id: number;
  readonly kind: Input["type"];
  readonly madeMs: number;
  readonly sentMs: number;
  readonly receivedMs: number | null;
  readonly appliedMs: number | null;
  /** Chunk and latent frame from which on it shapes the world. */
  readonly chunk: number | null;
  readonly latentFrame: number | null;
  readonly frame: number | null;
  readonly paintedMs: number | null;
  readonly parts: Readonly<Record<Part, number>> | null;
  /** Hand to photon, in ms. */
  readonly totalMs: number | null;
}

/** The frame that showed an input first. */
export interface Painting {
  readonly number: number;
  readonly chunk: number;
  readonly encodedMs: number | null;
  readonly receivedMs: number;
  readonly decodedMs: number;
  readonly paintedMs: number;
  readonly displayMs: number;
}

interface Entry {
  record: InputRecord;
  painting: Painting | null;
}

type ToLocal = (serverMs: number) => number | null;

const KEPT = 512;
const KEPT_CHUNKS = 32;
const HAND: ReadonlySet<string> = new Set(["keys", "pad", "pointer"]);

export class Ledger {
  readonly #toLocal: ToLocal;
  readonly #entries = new Map<number, Entry>();
  readonly #totals = new Samples();
  readonly #parts: Record<Part, Samples>;
  readonly #chunks = new Map<number, Chunk>(); // the newest ones
  #open: Entry[] = []; // painted, their chunk's stages not yet known

  constructor(toLocal: ToLocal) {
    this.#toLocal = toLocal;
    this.#parts = Object.fromEntries(PARTS.map((part) => [part, new Samples()])) as Record<Part, Samples>;
  }

  /** The newest inputs, oldest first. */
  get inputs(): readonly InputRecord[] {
    return [...this.#entries.values()].map((entry) => entry.record);
  }

  get latency(): Spread | null {
    return this.#totals.spread();
  }

  get parts(): Readonly<Partial<Record<Part, Spread>>> {
    const spreads = PARTS.map((part) => [part, this.#parts[part].spread()] as const);
    return Object.fromEntries(spreads.filter(([, spread]) => spread !== null)) as Partial<Record<Part, Spread>>;
  }

  sent(id: number, kind: Input["type"], times: { madeMs: number; sentMs: number }): void {
    const nothing = { receivedMs: null, appliedMs: null, chunk: null, latentFrame: null, frame: null };
    this.#entries.set(id, {
      record: { id, kind, ...times, ...nothing, paintedMs: null, parts: null, totalMs: null },
      painting: null,
    });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > KEPT && oldest !== undefined) this.#entries.delete(oldest);
  }

  received({ id, server_ms }: Received): void {
    this.#change(id, { receivedMs: this.#toLocal(server_ms) });
  }

  applied({ id, server_ms, chunk, latent_frame }: Applied): void {
    this.#change(id, { appliedMs: this.#toLocal(server_ms), chunk, latentFrame: latent_frame });
  }

  painted(ids: readonly number[], painting: Painting): void {
    for (const id of ids) {
      const entry = this.#entries.get(id);
      if (!entry) continue;
      entry.painting = painting;
      const totalMs = painting.paintedMs + painting.displayMs - entry.record.madeMs;
      this.#change(id, { frame: painting.number, paintedMs: painting.paintedMs, totalMs });
      if (!HAND.has(entry.record.kind)) continue;
      this.#totals.add(totalMs);
      const chunk = this.#chunks.get(painting.chunk);
      if (chunk) this.#split(entry, painting, chunk);
      else this.#open.push(entry);
    }
  }

  /** The stages of a chunk are known: what it showed first gets its parts, before or after painting. */
  chunk(chunk: Chunk): void {
    this.#chunks.set(chunk.index, chunk);
    const [oldest] = this.#chunks.keys();
    if (this.#chunks.size > KEPT_CHUNKS && oldest !== undefined) this.#chunks.delete(oldest);
    const due = this.#open;
    this.#open = [];
    for (const entry of due) {
      const painting = entry.painting as Painting;
      if (painting.chunk === chunk.index) this.#split(entry, painting, chunk);
      else if (painting.chunk > chunk.index) this.#open.push(entry);
    }
  }

  #split(entry: Entry, painting: Painting, chunk: Chunk): void {
    const parts = partsOf(entry.record, painting, chunk);
    if (!parts) return;
    this.#change(entry.record.id, { parts });
    for (const part of PARTS) this.#parts[part].add(parts[part]);
  }

  #change(id: number, change: Partial<InputRecord>): void {
    const entry = this.#entries.get(id);
    if (entry) entry.record = { ...entry.record, ...change };
  }
}

/** Null where a time is unknown: without a clock, or for an input that was never sampled itself. */
function partsOf(record: InputRecord, painting: Painting, chunk: Chunk): Record<Part, number> | null {
  const { madeMs, receivedMs, appliedMs } = record;
  const { encodedMs } = painting;
  if (receivedMs === null || appliedMs === null || encodedMs === null) return null;
  const model = encodedMs - appliedMs;
  const denoise = Math.min(model, chunk.stages["denoise"] ?? 0);
  const encode = Math.min(model - denoise, (chunk.stages["encode"] ?? 0) / Math.max(1, chunk.frames));
  return {
    inbox: receivedMs - madeMs,
    wait: appliedMs - receivedMs,
    denoise,
    decode: model - denoise - encode,
    encode,
    network: painting.receivedMs - encodedMs,
    client: painting.decodedMs - painting.receivedMs,
    queue: painting.paintedMs - painting.decodedMs,
    display: painting.displayMs,
  };
}
