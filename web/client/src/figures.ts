/** The figures of a HUD, and where they come from. */

import type { ClockState } from "./clock.js";
import type { Ledger, Part } from "./ledger.js";
import type { Spread } from "./meters.js";
import type { Chunk } from "./protocol.js";
import type { Screen } from "./screen.js";

export interface Figures {
  /** Frames painted per second; null until there are some. */
  readonly fps: number | null;
  /** The stream's own rate. */
  readonly targetFps: number | null;
  /** Hand to photon, in ms, of keys, sticks and pointer. */
  readonly latency: Spread | null;
  readonly parts: Readonly<Partial<Record<Part, Spread>>>;
  readonly stalls: number;
  /** Share of the time since the first frame that the picture stood still though it should not. */
  readonly stallRate: number;
  readonly longestGapMs: number;
  /** Frames that were never painted, because newer ones took their place. */
  readonly dropped: number;
  readonly leadMs: number;
  readonly rttMs: number | null;
  /** Work per chunk over its playing time; below 1 keeps up. Only who holds the controls is told. */
  readonly realTimeFactor: number | null;
  readonly chunkMs: number | null;
  readonly stages: Readonly<Record<string, number>>;
  readonly levers: readonly string[];
  readonly misses: number;
  readonly kbps: number | null;
}

export const NO_FIGURES: Figures = {
  fps: null,
  targetFps: null,
  latency: null,
  parts: {},
  stalls: 0,
  stallRate: 0,
  longestGapMs: 0,
  dropped: 0,
  leadMs: 0,
  rttMs: null,
  realTimeFactor: null,
  chunkMs: null,
  stages: {},
  levers: [],
  misses: 0,
  kbps: null,
};

export interface FigureSources {
  readonly screen: Screen;
  readonly ledger: Ledger;
  readonly clock: ClockState | null;
  readonly chunk: Chunk | null;
  readonly targetFps: number | null;
  /** How long the world has been playing, in ms. */
  readonly playedMs: number;
}

export function figures(from: FigureSources, nowMs: number): Figures {
  const { screen, ledger, clock, chunk } = from;
  const { stalls, dropped } = screen.playout;
  return {
    fps: screen.frames.fps(nowMs),
    targetFps: from.targetFps,
    latency: ledger.latency,
    parts: ledger.parts,
    stalls: stalls.count,
    stallRate: from.playedMs > 0 ? Math.min(1, stalls.ms / from.playedMs) : 0,
    longestGapMs: screen.frames.longestGapMs,
    dropped,
    leadMs: screen.leadMs,
    rttMs: clock?.rttMs ?? null,
    realTimeFactor: chunk?.real_time_factor ?? null,
    chunkMs: chunk?.stages["total"] ?? null,
    stages: chunk?.stages ?? {},
    levers: chunk?.levers ?? [],
    misses: chunk?.misses ?? 0,
    kbps: screen.rate.kbps(nowMs),
  };
}
