/**
 * One walk, or one visit to somebody else's: the client library's world as signals that screens
 * read, and what the page adds to it (words for its ends, toasts, the film, prompts that took hold).
 */

import { signal, type ReadonlySignal } from "@preact/signals";
import {
  connect,
  type ControlOf,
  type Figures,
  type Opened,
  type Path,
  type Queued,
  type Signal,
  type Support,
  type World,
} from "@worldline/client";

import { wanted } from "../lib/formats";
import { announce, explain, sentence, type Ending } from "../lib/words";
import type { Preferences } from "./preferences";
import type { Way } from "./request";
import { TimeMachine } from "./timemachine";
import { Toasts } from "./toasts";

export interface Kept {
  readonly attempt: number;
  /** Clock time of the next attempt; null while one is under way. */
  readonly nextAt: number | null;
  /** Clock time until which the server keeps the world; null when it did not say. */
  readonly until: number | null;
}

export type Film =
  | { readonly phase: "on"; readonly since: number; readonly url: string }
  | { readonly phase: "done"; readonly url: string; readonly seconds: number };

export type PromptState = { readonly phase: "sent" | "shown"; readonly ms: number } | null;

export interface Setting {
  readonly way: Way;
  readonly url: URL | string;
  readonly access: string | null;
  readonly preferences: Preferences;
  readonly support: ReadonlySignal<Support>;
}

const DEGREES_PER_PIXEL = 0.12;
const LEAD_MS = 120;
const BLEND_MS = 90;
const AMBIENT_EVERY = 6;
const HISTORY = 60;
const STALL_MS = 2500;

export class Walk {
  readonly way: Way;
  /** The key of a server that asks for one. */
  readonly access: string | null;
  readonly world: World;
  readonly toasts = new Toasts();
  readonly phase: ReadonlySignal<World["phase"]["value"]>;
  readonly state: ReadonlySignal<World["state"]["value"]>;
  readonly queue: ReadonlySignal<Queued | null>;
  readonly opened: ReadonlySignal<Opened | null>;
  readonly control: ReadonlySignal<ControlOf | null>;
  readonly seat: ReadonlySignal<World["seat"]["value"]>;
  readonly figures: ReadonlySignal<Figures>;
  readonly decoder: ReadonlySignal<World["decoder"]["value"]>;
  readonly size: ReadonlySignal<World["size"]["value"]>;
  readonly held: ReadonlySignal<World["hands"]["held"]["value"]>;
  readonly sticks: ReadonlySignal<World["hands"]["sticks"]["value"]>;
  readonly locked: ReadonlySignal<boolean>;
  readonly gamepad: ReadonlySignal<string | null>;
  readonly time: TimeMachine;
  /** The worker died; the world waits for another one. */
  readonly recovering = signal(false);
  readonly ending = signal<Ending | null>(null);
  readonly kept = signal<Kept | null>(null);
  /** Where the newest Chrome trace can be fetched. */
  readonly trace = signal<string | null>(null);
  readonly tracing = signal(false);
  /** True while a live world has shown nothing for a while. */
  readonly stalled = signal(false);
  readonly film = signal<Film | null>(null);
  /** The camera path at hand: recorded by walking, or read from a file. */
  readonly path = signal<Path | null>(null);
  readonly promptState = signal<PromptState>(null);
  /** The gallery's world that the newest prompt names, if it names one. */
  readonly place = signal<string | null>(null);
  /** Input to photon of the newest inputs in ms, oldest first. */
  readonly history = signal<readonly number[]>([]);

  readonly #support: ReadonlySignal<Support>;
  readonly #stops: (() => void)[] = [];
  #lostAt: number | null = null;
  #prompts = 0;
  readonly #places = new Map<string, string | null>(); // by the words that were said

  constructor(setting: Setting) {
    this.way = setting.way;
    this.access = setting.access;
    this.#support = setting.support;
    this.world = connect(setting.url, options(setting));
    const { world } = this;
    const mirror = <T>(source: Signal<T>): ReadonlySignal<T> => {
      const copy = signal(source.value);
      this.#stops.push(source.subscribe((value) => (copy.value = value)));
      return copy;
    };
    this.phase = mirror(world.phase);
    this.state = mirror(world.state);
    this.queue = mirror(world.queue);
    this.opened = mirror(world.opened);
    this.control = mirror(world.control);
    this.seat = mirror(world.seat);
    this.figures = mirror(world.figures);
    this.decoder = mirror(world.decoder);
    this.size = mirror(world.size);
    this.held = mirror(world.hands.held);
    this.sticks = mirror(world.hands.sticks);
    this.locked = mirror(world.hands.locked);
    this.gamepad = mirror(world.hands.gamepad);
    this.place.value = placeOf(setting.way);
    this.time = new TimeMachine(world, this.toasts, setting.access);
    this.#stops.push(...this.time.listen());
    this.#listen();
    this.prefer(setting.preferences, null);
  }

  /** True while somebody else holds the controls. */
  get spectator(): boolean {
    const mine = this.control.value?.yours ?? this.opened.value?.controls;
    return !(mine ?? this.way.kind !== "watch");
  }

  /** Gives the walk its canvases and the hands what they touch; returns what takes them away. */
  attach(view: HTMLCanvasElement, ambient: HTMLCanvasElement, glass: HTMLElement): () => void {
    const around = ambient.getContext("2d");
    let drawn = 0;
    let shownAt = performance.now();
    const watch = setInterval(() => {
      this.stalled.value = this.phase.value === "live" && performance.now() - shownAt > STALL_MS;
    }, STALL_MS / 5);
    const stops = [
      () => clearInterval(watch),
      this.world.attach(view),
      this.world.hands.listen(glass),
      this.world.on("painted", ({ width, height, ...painted }) => {
        shownAt = performance.now();
        if (drawn++ % AMBIENT_EVERY === 0) around?.drawImage(view, 0, 0, 20, 12);
        view.style.setProperty("--ratio", String(width / height));
        view.dataset["drawn"] = String(drawn);
        view.dataset["number"] = String(painted.number);
        view.dataset["chunk"] = String(painted.chunk);
        view.dataset["event"] = String(painted.input);
      }),
    ];
    return () => stops.forEach((stop) => stop());
  }

  prompt(text: string, place: string | null, blendChunks: number): void {
    const at = performance.now();
    const mine = ++this.#prompts;
    const settle = (state: PromptState): void => {
      if (mine === this.#prompts) this.promptState.value = state;
    };
    settle({ phase: "sent", ms: 0 });
    this.place.value = place;
    this.#places.set(text, place);
    this.world.prompt(text, { blendChunks }).shown.then(
      () => settle({ phase: "shown", ms: performance.now() - at }),
      () => settle(null), // `refused` says why
    );
  }

  /** Takes over what changed; `before` is null at the start, when the connection carries the rest. */
  prefer(now: Preferences, before: Preferences | null): void {
    const { world } = this;
    world.hands.tune({ sensitivity: DEGREES_PER_PIXEL * now.sensitivity, invertY: now.invert });
    if (!before) return;
    if (now.timewarp !== before.timewarp) world.setTimewarp(now.timewarp);
    if (now.blend !== before.blend) world.setPlayout({ blendMs: playout(now).blendMs });
    if (now.lead !== before.lead) world.setPlayout({ leadMs: playout(now).leadMs });
    const offered = world.ready.value?.formats ?? [];
    const formats = wanted(now.format, this.#support.value) ?? this.#support.value.formats;
    const format = formats.find((one) => offered.includes(one));
    const changed = {
      ...(now.speed !== before.speed && { speed: now.speed }),
      ...(now.format !== before.format && format && { format }),
      ...(now.quality !== before.quality && { quality: now.quality }),
    };
    if (Object.keys(changed).length > 0) world.settings(changed);
  }

  screenshot(): Promise<Blob> {
    return this.world.screenshot("image/png");
  }

  retry(): void {
    this.world.retryNow();
  }

  /** Ends the world, or stops watching. */
  leave(): void {
    this.world.leave();
    this.#stops.forEach((stop) => stop());
  }

  /** Lets go of this connection; the world waits for another. */
  disconnect(): void {
    this.world.disconnect();
    this.#stops.forEach((stop) => stop());
  }

  #listen(): void {
    const { world, toasts } = this;
    this.#stops.push(
      world.on("notice", ({ code, message, in_ms }) => {
        if (code === "recovering") this.recovering.value = true;
        if (code === "recovered") this.recovering.value = false;
        const text = announce(code, message);
        if (text !== null) toasts.say(text, { inMs: in_ms ?? 0, about: code });
      }),
      world.opened.subscribe((opened) => {
        this.recovering.value = false; // what another connection announced may be over
        if (opened && !this.#places.has(opened.prompt)) this.#places.set(opened.prompt, this.place.value);
      }),
      world.phase.subscribe((phase) => {
        if (phase === "ended") this.recovering.value = false;
      }),
      world.on("rewound", ({ prompt }) => {
        this.promptState.value = null; // words that were under way are of no walk now
        this.place.value = this.#places.get(prompt) ?? null;
      }),
      world.on("received", () => toasts.settle("idle")),
      world.on("traced", ({ on, url }) => {
        this.tracing.value = on;
        this.trace.value = on || !url ? null : url;
      }),
      world.hands.gamepad.subscribe((name) => {
        if (name !== null) toasts.say("Gamepad ready: left stick walks, right stick looks.");
      }),
      world.on("refused", (error) => toasts.say(sentence(error.message), { tone: "warning" })),
      world.on("painted", () => this.#note()),
      world.retry.subscribe((retry) => this.#retrying(retry)),
      world.ended.subscribe((ended) => {
        if (!ended) return (this.ending.value = null);
        this.ending.value = explain(ended);
        this.#keepFilm(this.ending.value.resumes);
      }),
      world.recording.subscribe((recording) => {
        if (recording?.on) this.film.value = { phase: "on", since: performance.now(), url: recording.url ?? "" };
        else if (recording?.url) {
          this.film.value = { phase: "done", url: recording.url, seconds: recording.seconds ?? 0 };
        } else this.film.value = null;
      }),
    );
  }

  /** The server says where a film is before a world ends; a world that broke off could not. */
  #keepFilm(resumes: boolean): void {
    const film = this.film.value;
    if (film?.phase !== "on" || resumes) return;
    const seconds = (performance.now() - film.since) / 1000;
    this.film.value = film.url ? { phase: "done", url: film.url, seconds } : null;
  }

  #retrying(retry: World["retry"]["value"]): void {
    if (!retry) {
      this.#lostAt = null;
      this.kept.value = null;
      return;
    }
    const now = performance.now();
    this.#lostAt ??= now;
    const grace = this.world.ready.value?.limits.grace_ms ?? 0;
    this.kept.value = {
      attempt: retry.attempt,
      nextAt: retry.inMs > 0 ? now + retry.inMs : null,
      until: grace > 0 ? this.#lostAt + grace : null,
    };
  }

  #count = 0;

  #note(): void {
    const latency = this.figures.value.latency;
    if (!latency || latency.count === this.#count) return;
    this.#count = latency.count;
    this.history.value = [...this.history.value, latency.last].slice(-HISTORY);
  }
}

function placeOf(way: Way): string | null {
  if (way.kind === "watch" || way.kind === "file") return null;
  return way.kind === "enter" ? way.request.place : way.place;
}

function playout(preferences: Preferences): { leadMs: number; blendMs: number } {
  return { leadMs: preferences.lead || LEAD_MS, blendMs: preferences.blend ? BLEND_MS : 0 };
}

function options({ way, access, preferences, support }: Setting): Parameters<typeof connect>[1] {
  const { format, quality, speed, timewarp, transport } = preferences;
  const formats = wanted(format, support.value);
  const common = {
    client: "worldline-page",
    token: access,
    timewarp,
    transport,
    playout: playout(preferences),
    ...(formats && { formats }),
  };
  if (way.kind === "watch") return { ...common, start: { watch: way.world } };
  if (way.kind === "rejoin") return { ...common, start: { rejoin: way.token } };
  if (way.kind === "file") return { ...common, start: { enter: { world: way.world, quality, speed } } };
  const { prompt, seed, size } = way.request;
  const enter = {
    prompt,
    image: way.image,
    seed,
    quality,
    speed,
    ...(size && { width: size[0], height: size[1] }),
  };
  return { ...common, start: { enter } };
}
