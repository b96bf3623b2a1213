/** Visits over fake sockets: entered, live, and shown. */

import { vi } from "vitest";

import { connect, type ConnectOptions, type Phase, type World } from "../src/index.js";
import type { ServerMessage } from "../src/protocol.js";
import { FakeBrowser, FakeCodecs, frame, OPENED, READY, settled, type FakeSocket } from "./fakes.js";

export const IMAGE = new Uint8Array([1, 2, 3]);
export const SEAT: ServerMessage = { type: "seat", world: "w1", viewer: "v1", token: "secret" };

/** What a canvas needs in Node; for `beforeEach`. */
export function stubBrowser(): void {
  vi.stubGlobal("ResizeObserver", class { observe(): void {} disconnect(): void {} });
}

export function canvas(): HTMLCanvasElement {
  const context = { drawImage: () => undefined, setTransform: () => undefined };
  const page = { createElement: () => ({ getContext: () => null }) };
  return {
    width: 0, height: 0, clientWidth: 832, clientHeight: 480, ownerDocument: page,
    getContext: (kind: string) => (kind === "2d" ? context : null),
  } as unknown as HTMLCanvasElement;
}

export interface Visiting {
  readonly browser: FakeBrowser;
  readonly codecs: FakeCodecs;
  readonly world: World;
  readonly phases: Phase[];
}

export async function visit(options: Partial<ConnectOptions> = {}, browser = new FakeBrowser()): Promise<Visiting> {
  const codecs = new FakeCodecs();
  const world = connect("http://host/v1/worlds/live", {
    start: { enter: { prompt: "a courtyard", image: IMAGE, seed: 7 } },
    environment: browser.environment,
    codecs,
    painter: "2d",
    ...options,
  });
  const phases: Phase[] = [];
  world.phase.subscribe((phase) => phases.push(phase));
  world.attach(canvas());
  await settled();
  return { browser, codecs, world, phases };
}

export function welcome(socket: FakeSocket): void {
  socket.open();
  socket.say(READY);
}

export async function live(options: Partial<ConnectOptions> = {}, browser = new FakeBrowser()): Promise<Visiting> {
  const found = await visit(options, browser);
  welcome(browser.socket);
  browser.socket.say(SEAT);
  browser.socket.say(OPENED);
  return found;
}

/** Frames arrive, are decoded, and the display shows them for a while. */
export async function show({ browser }: Visiting, first: number, count: number, change: object = {}, paints = count * 5): Promise<void> {
  for (let i = first; i < first + count; i++) browser.socket.say(frame(i, change));
  await settled();
  for (let i = 0; i < paints; i++) browser.clock.paint(16);
}
