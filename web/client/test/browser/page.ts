/** What runs in the browser: each task's answer goes back to the test by HTTP. */

import { browserEnvironment } from "../../src/environment.js";
import { connect, supported, browserCodecs, type Frame } from "../../src/index.js";
import type { Picture } from "../../src/media/codecs.js";
import { Decoders, type Decoded } from "../../src/media/decoders.js";
import { PLAIN, type Drawing, type PainterKind } from "../../src/view/drawing.js";
import { homography, normalised, type Intrinsics, type View } from "../../src/view/homography.js";
import { createPainter } from "../../src/view/painter.js";
import { FakeSocket, frame, OPENED, READY } from "../fakes.js";
import chart from "./chart.json";
import { HEIGHT, pattern, WIDTH } from "./pattern.js";

export const LENS: Intrinsics = normalised([125, 125, 104, 60], WIDTH, HEIGHT);
export const TURNS: readonly View[] = [
  { yaw: 0, pitch: 0 },
  { yaw: 4, pitch: 0 },
  { yaw: -3, pitch: 5 },
  { yaw: 9, pitch: -6 },
];
const FROM: View = { yaw: 30, pitch: -10 };

export function turned(turn: View, zoom: number): Drawing {
  const to = { yaw: FROM.yaw + turn.yaw, pitch: FROM.pitch + turn.pitch };
  return { ...PLAIN, turn: homography(LENS, FROM, to, zoom) };
}

function makeCanvas(width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.style.cssText = `width:${width}px;height:${height}px;display:block`;
  document.body.append(canvas);
  return canvas;
}

function pixels(canvas: HTMLCanvasElement): string {
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  const context = copy.getContext("2d") as CanvasRenderingContext2D;
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, copy.width, copy.height);
  let text = "";
  for (const byte of data) text += String.fromCharCode(byte);
  return btoa(text);
}

async function patternBitmap(phase = 0): Promise<ImageBitmap> {
  return createImageBitmap(new ImageData(pattern(phase), WIDTH, HEIGHT), { premultiplyAlpha: "none", colorSpaceConversion: "none" });
}

async function warps(kind: PainterKind): Promise<{ kind: string; pictures: string[]; blend: string }> {
  const canvas = makeCanvas(WIDTH, HEIGHT);
  const painter = createPainter(canvas, kind);
  painter.take(await patternBitmap());
  const pictures = TURNS.map((turn) => {
    painter.draw(turned(turn, 1.04));
    return pixels(canvas);
  });
  painter.take(await patternBitmap(2));
  painter.draw({ ...turned(TURNS[1] as View, 1.04), turnBefore: turned(TURNS[2] as View, 1.04).turn, share: 0.25 });
  const blend = pixels(canvas);
  painter.dispose();
  return { kind: painter.kind, pictures, blend };
}

function chartFrame(number: number, data?: Uint8Array): Frame {
  const { key, codec, data: text } = chart.frames[number] as { key: boolean; codec: string | null; data: string };
  const payload = data ?? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const size = { width: chart.width, height: chart.height };
  return frame(number, { format: "h264", key, payload, ...size, ...(codec === null ? {} : { codec }) });
}

interface Video {
  readonly numbers: number[];
  readonly asked: number;
  readonly colours: Record<string, number[][]>;
}

/** The chart through the decoders and both painters; `spoil` are frames whose bytes are garbage. */
async function video(spoil: readonly number[]): Promise<Video> {
  const out: Decoded[] = [];
  let asked = 0;
  const decoders = new Decoders(browserCodecs(), {
    decoded: (decoded) => out.push(decoded),
    needKey: () => asked++,
    dead: () => undefined,
    lost: () => undefined,
    now: () => performance.now(),
  });
  for (let i = 0; i < chart.frames.length; i++) {
    const garbage = Uint8Array.from({ length: 90 }, (_, k) => (k < 5 ? [0, 0, 0, 1, 0x41][k] as number : (k * 73) % 251));
    decoders.take(chartFrame(i, spoil.includes(i) ? garbage : undefined), performance.now());
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  for (let i = 0; i < 100 && out.at(-1)?.info.number !== 11; i++) await new Promise((resolve) => setTimeout(resolve, 30));
  const numbers = out.map(({ info }) => info.number);
  const colours: Record<string, number[][]> = {};
  const lent = out.find(({ picture }) => "displayWidth" in picture)?.picture as VideoFrame;
  const copied = out.find(({ picture }) => !("displayWidth" in picture))?.picture as ImageBitmap;
  for (const kind of ["webgl", "2d"] as const) {
    colours[`${kind}, lent`] = painted(kind, lent.clone());
    colours[`${kind}, copied`] = painted(kind, await createImageBitmap(copied));
  }
  for (const { picture } of out) picture.close();
  decoders.close();
  return { numbers, asked, colours };
}

function painted(kind: PainterKind, picture: Picture): number[][] {
  const canvas = makeCanvas(chart.width, chart.height);
  const painter = createPainter(canvas, kind);
  painter.take(picture);
  painter.draw(PLAIN);
  const found = patches(canvas);
  painter.dispose();
  return found;
}

function patches(canvas: HTMLCanvasElement): number[][] {
  const data = atob(pixels(canvas));
  return chart.colours.map((_, i) => {
    const [x, y] = [(i % 5) * chart.patch + 16, Math.floor(i / 5) * chart.patch + 12];
    return [0, 1, 2].map((c) => data.charCodeAt((y * canvas.width + x) * 4 + c));
  });
}

/** A whole world over a socket of our own: the hand turns, and the picture turns before any frame does. */
async function world(timewarp: boolean): Promise<{ before: string; after: string; input: string; phase: string }> {
  let socket!: FakeSocket;
  const environment = {
    ...browserEnvironment(),
    store: null,
    socket: (url: string, protocols: string[]) => (socket = new FakeSocket(url, protocols)),
  };
  const visit = connect(location.href, {
    start: { enter: { prompt: "x", image: new Uint8Array(1) } },
    environment,
    painter: "webgl",
    timewarp: timewarp && { overscan: 0.04, maxDegrees: 12 },
    formats: ["raw"],
  });
  const canvas = makeCanvas(WIDTH, HEIGHT);
  const detach = visit.attach(canvas);
  for (let i = 0; i < 100 && !socket; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  socket.open();
  socket.say(READY);
  socket.say({ type: "seat", world: "w", viewer: "v", token: "t" });
  socket.say({ ...OPENED, width: WIDTH, height: HEIGHT, intrinsics: [125, 125, 104, 60] });
  const rgba = pattern();
  const payload = new Uint8Array(WIDTH * HEIGHT * 3).map((_, i) => rgba[Math.floor(i / 3) * 4 + (i % 3)] as number);
  const painted = new Promise((resolve) => visit.on("painted", resolve));
  for (const number of [0, 1, 2]) socket.say(frame(number, { format: "raw", width: WIDTH, height: HEIGHT, payload, ...FROM }));
  await painted;
  await displayed(20);
  const before = seen(visit);
  visit.hands.turn(4, 0);
  await displayed(3);
  const after = seen(visit);
  const sent = socket.of("pointer")[0];
  detach();
  visit.disconnect();
  return { before, after, input: JSON.stringify([sent?.yaw, sent?.pitch]), phase: visit.phase.value };
}

interface Rtc {
  readonly numbers: number[];
  readonly kind: string | undefined;
  readonly after: string | undefined;
  readonly left: string;
}

/** A world whose pictures come by WebRTC from a peer in this page, and by the socket again when that ends. */
async function rtc(): Promise<Rtc> {
  let socket!: FakeSocket;
  const environment = {
    ...browserEnvironment(),
    store: null,
    socket: (url: string, protocols: string[]) => (socket = new FakeSocket(url, protocols)),
  };
  const start = { enter: { prompt: "x", image: new Uint8Array(1) } };
  const visit = connect(location.href, { start, environment, painter: "2d", transport: "webrtc", formats: ["raw"] });
  const numbers: number[] = [];
  visit.on("painted", ({ number }) => numbers.push(number));
  const detach = visit.attach(makeCanvas(WIDTH, HEIGHT));
  await until(() => socket !== undefined);
  socket.open();
  socket.say({ ...READY, transports: ["websocket", "webrtc"] });
  socket.say({ type: "seat", world: "w", viewer: "v", token: "t" });
  socket.say({ ...OPENED, width: WIDTH, height: HEIGHT });
  await until(() => socket.of("rtc_offer").length > 0);
  const source = makeCanvas(WIDTH, HEIGHT);
  const context = source.getContext("2d") as CanvasRenderingContext2D;
  const peer = new RTCPeerConnection();
  for (const track of source.captureStream(16).getTracks()) peer.addTrack(track);
  await peer.setRemoteDescription({ type: "offer", sdp: socket.of("rtc_offer")[0]?.sdp ?? "" });
  await peer.setLocalDescription(await peer.createAnswer());
  await until(() => peer.iceGatheringState === "complete");
  socket.say({ type: "rtc_answer", sdp: peer.localDescription?.sdp ?? "" });
  const begin = performance.now();
  for (let shown = -1; numbers.length < 12 && performance.now() - begin < 30_000; ) {
    const number = Math.floor(((performance.now() - begin) * 16) / 1000);
    if (number !== shown) {
      shown = number;
      context.fillStyle = `hsl(${number * 20} 80% 50%)`;
      context.fillRect(0, 0, WIDTH, HEIGHT);
      socket.say(frame(number, { format: "h264", key: false, payload: new Uint8Array(0) }));
    }
    await new Promise((resolve) => setTimeout(resolve, 8));
  }
  const { kind } = visit.decoder.value ?? {};
  peer.close();
  const payload = new Uint8Array(WIDTH * HEIGHT * 3);
  const next = numbers.length;
  for (let i = 0; i < 6; i++) socket.say(frame(9000 + i, { format: "raw", width: WIDTH, height: HEIGHT, payload }));
  await until(() => numbers.length > next && (numbers.at(-1) ?? 0) >= 9000);
  const after = visit.decoder.value?.kind;
  detach();
  visit.leave();
  return { numbers, kind, after, left: visit.phase.value };
}

interface Insecure {
  readonly secure: boolean;
  readonly support: Awaited<ReturnType<typeof supported>>;
  readonly asked: string | undefined;
  readonly painted: number;
  readonly reason: string | null | undefined;
}

/** The same over plain http from another machine: no video decoder, so pictures. */
async function plainHttp(): Promise<Insecure> {
  let socket!: FakeSocket;
  const environment = { ...browserEnvironment(), socket: (url: string, protocols: string[]) => (socket = new FakeSocket(url, protocols)) };
  const visit = connect(location.href, { start: { enter: { prompt: "x", image: new Uint8Array(1) } }, environment });
  let painted = 0;
  visit.on("painted", () => painted++);
  const canvas = makeCanvas(WIDTH, HEIGHT);
  visit.attach(canvas);
  const letGo = visit.hands.listen(canvas);
  await until(() => socket !== undefined);
  socket.open();
  socket.say(READY);
  socket.say({ type: "seat", world: "w", viewer: "v", token: "t" });
  socket.say(OPENED);
  const source = makeCanvas(WIDTH, HEIGHT);
  source.getContext("2d")?.fillRect(0, 0, 9, 9);
  const blob = await new Promise<Blob | null>((resolve) => source.toBlob(resolve, "image/jpeg"));
  const payload = new Uint8Array((await blob?.arrayBuffer()) ?? new ArrayBuffer(0));
  for (let i = 0; i < 4; i++) socket.say(frame(i, { payload }));
  await until(() => painted === 4);
  letGo();
  const reason = visit.decoder.value?.reason;
  visit.leave();
  return { secure: isSecureContext, support: await supported(browserCodecs(), isSecureContext), asked: socket.of("enter")[0]?.format, painted, reason };
}

function inFrame(): Promise<Insecure> {
  const inner = document.createElement("iframe");
  inner.style.cssText = "width:400px;height:300px";
  inner.src = `http://insecure.test:${location.port}/`;
  document.body.prepend(inner);
  return new Promise((resolve) => addEventListener("message", ({ data }) => resolve(data as Insecure)));
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
}

function seen(visit: ReturnType<typeof connect>): string {
  const found = visit.probe().pixels();
  return btoa(String.fromCharCode(...(found?.data.slice(0, 0) ?? [])) + (found?.data ?? []).map((byte) => String.fromCharCode(byte)).join(""));
}

async function displayed(pictures: number): Promise<void> {
  for (let i = 0; i < pictures; i++) await new Promise((resolve) => requestAnimationFrame(resolve));
}

async function main(): Promise<unknown> {
  return {
    secure: isSecureContext,
    support: await supported(browserCodecs(), isSecureContext),
    webgl: await warps("webgl"),
    flat: await warps("2d"),
    clean: await video([]),
    spoilt: await video([3]),
    warped: await world(true),
    plain: await world(false),
    rtc: await rtc(),
    insecure: await inFrame(),
  };
}

export interface Answer {
  readonly secure: boolean;
  readonly support: { formats: string[]; reason: string | null };
  readonly webgl: Awaited<ReturnType<typeof warps>>;
  readonly flat: Awaited<ReturnType<typeof warps>>;
  readonly clean: Video;
  readonly spoilt: Video;
  readonly warped: Awaited<ReturnType<typeof world>>;
  readonly plain: Awaited<ReturnType<typeof world>>;
  readonly rtc: Rtc;
  readonly insecure: Insecure;
}

if (typeof document !== "undefined" && parent !== self) {
  void plainHttp().then(
    (answer) => parent.postMessage(answer, "*"),
    (error: unknown) => parent.postMessage({ error: String(error) }, "*"),
  );
} else if (typeof document !== "undefined") {
  void main()
    .catch((error: unknown) => ({ error: error instanceof Error ? `${error.message}\n${error.stack}` : String(error) }))
    .then((answer) => fetch("answer", { method: "POST", body: JSON.stringify(answer) }));
}
