/**
 * How far the hand has turned the view beyond what any frame shows yet. The hand's turns are summed as
 * they are made, each painted frame says how far the world has turned, and the difference is what the
 * timewarp shows. The world turns in whole latent frames, so the two sums drift apart by a little; that
 * rest fades away once the hand is still, its last turn is on screen and the picture stands.
 */

import type { RigSpeed } from "../protocol.js";
import { STILL, type Motion } from "../hands/motion.js";
import type { View } from "./homography.js";

const FADE_MS = 160;
const GIVE_UP_MS = 4000; // after the last turn: then it is not shown any more (a refusal, a pause)

export interface GazeOptions {
  readonly rig: RigSpeed;
  readonly fps: number;
  /** Pictures per latent frame: the rig's speeds are per latent frame. */
  readonly latentFrames: number;
  readonly maxDegrees: number;
  /** Scales every motion, as the world's own setting does. */
  readonly speed: number;
}

export class Gaze {
  #options: GazeOptions;
  #motion: Motion = STILL;
  #asked: { yaw: number; pitch: number } = { yaw: 0, pitch: 0 };
  #way = { yaw: 0, pitch: 0 }; // where the hand turned last, as a sign
  #shown: View | null = null;
  #atMs = 0;
  #turnedMs = Number.NEGATIVE_INFINITY; // when the hand last turned
  #movedMs = Number.NEGATIVE_INFINITY; // when the picture last turned
  #lookInput = 0;
  #shownInput = 0;
  #unsent = false; // the hand turned, and no message says so yet

  constructor(options: GazeOptions) {
    this.#options = options;
  }

  set speed(speed: number) {
    this.#options = { ...this.#options, speed };
  }

  /** Frames per second as they really come: a world that is slow turns slowly, too. */
  set fps(fps: number) {
    if (fps !== this.#options.fps) this.#options = { ...this.#options, fps };
  }

  moved(motion: Motion, atMs: number): void {
    this.#advance(atMs);
    const looked = this.#looks();
    this.#motion = motion;
    if (looked || this.#looks()) this.#hand(atMs);
  }

  turned(yaw: number, pitch: number, atMs: number): void {
    this.#advance(atMs);
    this.#turn(yaw, pitch);
    this.#hand(atMs);
  }

  /** Input `id` carried a look, or the end of one. */
  sent(id: number): void {
    this.#lookInput = Math.max(this.#lookInput, id);
    this.#unsent = false;
  }

  /** A frame is on screen. */
  painted(view: View & { readonly input: number }, atMs: number): void {
    this.#advance(atMs);
    const old = this.#shown;
    this.#shown = { yaw: view.yaw, pitch: view.pitch };
    this.#shownInput = Math.max(this.#shownInput, view.input);
    if (!old) this.#asked = { ...this.#shown };
    else if (Math.abs(old.yaw - view.yaw) + Math.abs(old.pitch - view.pitch) > 0.01) {
      this.#movedMs = atMs;
      this.#follow("yaw", old.yaw);
      this.#follow("pitch", old.pitch);
    }
  }

  /** The view to show now: where the hand looks, at most `maxDegrees` from the newest frame. */
  at(nowMs: number): View | null {
    this.#advance(nowMs);
    const shown = this.#shown;
    if (!shown) return null;
    const yaw = this.#asked.yaw - shown.yaw;
    const pitch = this.#asked.pitch - shown.pitch;
    const share = Math.min(1, this.#options.maxDegrees / Math.max(1e-9, Math.hypot(yaw, pitch)));
    return { yaw: shown.yaw + yaw * share, pitch: shown.pitch + pitch * share };
  }

  /** What the hand asked for up to now leads nowhere: the world stood still. */
  forget(): void {
    if (this.#shown) this.#asked = { ...this.#shown };
    this.#unsent = false;
  }

  /** The world is elsewhere (a reset, a new connection): the next frame says where. */
  reset(): void {
    this.#shown = null;
    this.#motion = STILL;
    this.#turnedMs = this.#movedMs = Number.NEGATIVE_INFINITY;
    this.#lookInput = this.#shownInput = 0;
    this.#unsent = false;
  }

  /**
   * The world turned beyond what the hand asked for: it rounds up to whole latent frames, or something
   * else turns it (a path, another hand). The view goes along, and is never held back; except where
   * the hand has turned the other way since, which the next frames will show.
   */
  #follow(axis: "yaw" | "pitch", before: number): void {
    const now = (this.#shown as View)[axis];
    const way = Math.sign(now - before);
    const back = this.#way[axis] === -way && this.#pending;
    if ((now - this.#asked[axis]) * way > 0 && !back) this.#asked[axis] = now;
  }

  /** The hand turns, or did so and no frame shows it. */
  get #pending(): boolean {
    return this.#looks() || this.#unsent || this.#shownInput < this.#lookInput;
  }

  #advance(nowMs: number): void {
    const ms = nowMs - this.#atMs;
    if (ms <= 0) return;
    this.#atMs = nowMs;
    if (this.#looks()) {
      const { rig, fps, latentFrames, speed } = this.#options;
      const gone = ((ms / 1000) * fps * speed) / latentFrames;
      this.#turn(this.#motion.yaw * rig.yaw_deg * gone, this.#motion.pitch * rig.pitch_deg * gone);
      this.#turnedMs = nowMs;
    } else if (this.#shown && this.#settled(nowMs)) {
      const left = Math.exp(-ms / FADE_MS);
      this.#asked.yaw = this.#shown.yaw + (this.#asked.yaw - this.#shown.yaw) * left;
      this.#asked.pitch = this.#shown.pitch + (this.#asked.pitch - this.#shown.pitch) * left;
    }
  }

  /** The hand is still and what it did is on screen, or will never be. */
  #settled(nowMs: number): boolean {
    if (nowMs - this.#turnedMs > GIVE_UP_MS && nowMs - this.#movedMs > FADE_MS) return true;
    const latentMs = (1000 * this.#options.latentFrames) / this.#options.fps;
    return !this.#pending && nowMs - this.#movedMs > 1.5 * latentMs;
  }

  #hand(atMs: number): void {
    this.#turnedMs = atMs;
    this.#unsent = true;
  }

  #turn(yaw: number, pitch: number): void {
    if (!this.#shown) return;
    if (yaw !== 0) this.#way.yaw = Math.sign(yaw);
    if (pitch !== 0) this.#way.pitch = Math.sign(pitch);
    const limit = this.#options.rig.pitch_limit_deg;
    this.#asked.yaw += yaw;
    this.#asked.pitch = Math.min(limit, Math.max(-limit, this.#asked.pitch + pitch));
  }

  #looks(): boolean {
    return this.#motion.yaw !== 0 || this.#motion.pitch !== 0;
  }
}
