/** Walk a Worldline world from a browser; see the README. */

export type { BackoffOptions } from "./backoff.js";
export type { ClockState } from "./clock.js";
export type { Environment, SocketLike, Store } from "./environment.js";
export { WorldError, type ClientCode, type ErrorDetails } from "./errors.js";
export type { Figures } from "./figures.js";
export { ACTIONS, KEY_ACTIONS } from "./hands/held.js";
export type { StickView, Tuning } from "./hands/devices.js";
export type { Hands, ListenOptions } from "./hands/hands.js";
export { fromActions, type Motion } from "./hands/motion.js";
export type { Sticks } from "./hands/touch.js";
export { PARTS, type InputRecord, type Part } from "./ledger.js";
export { browserCodecs, supported, type Codecs, type Support } from "./media/codecs.js";
export type { PlayoutOptions } from "./media/playout.js";
export type { Spread } from "./meters.js";
export type { ConnectOptions, EnterOptions, Start, TimewarpOptions } from "./options.js";
export { readPath, writePath, type Path, type Pose } from "./path/path.js";
export type { PathRecorder } from "./path/recorder.js";
export type { Probe } from "./probe.js";
export * from "./protocol.js";
export type { Receipt, ShownAt } from "./receipts.js";
export type { Painted } from "./screen.js";
export type { Resumable } from "./seatbook.js";
export type { Ended, Phase, Retry } from "./session.js";
export type { Signal, Unsubscribe } from "./signals.js";
export type { DecoderState, WorldEvents } from "./visit.js";
export { connect, resumable, type World } from "./world.js";
export { homography, type Intrinsics, type Mat3, type View } from "./view/homography.js";
