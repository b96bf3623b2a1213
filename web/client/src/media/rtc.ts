/**
 * Pictures by WebRTC: for networks that lose packets, where a socket would wait for each of them. The
 * browser receives, orders and decodes; what is said about the pictures still comes by the socket.
 */

import { asError } from "../errors.js";
import type { Decoded, FrameInfo } from "./decoders.js";
import { Pairing } from "./pairing.js";

const GATHER_MS = 2000; // an offer goes out then, with the candidates found

export interface RtcEvents {
  /** The offer is to be sent. */
  offer(sdp: string): void;
  decoded(decoded: Decoded): void;
  /** Pictures come by the socket again, or never came by WebRTC. */
  ended(reason: string): void;
  now(): number;
  after(ms: number, task: () => void): () => void;
}

/** Whether this browser can receive video so that its times are known. */
export function rtcAvailable(): boolean {
  return (
    typeof RTCPeerConnection !== "undefined" &&
    typeof HTMLVideoElement !== "undefined" &&
    "requestVideoFrameCallback" in HTMLVideoElement.prototype
  );
}

export class RtcPictures {
  readonly #events: RtcEvents;
  readonly #pairing: Pairing;
  readonly #connection: RTCPeerConnection;
  readonly #video: HTMLVideoElement;
  #over = false;
  #order: Promise<void> = Promise.resolve();

  constructor(fps: number, events: RtcEvents) {
    this.#events = events;
    this.#pairing = new Pairing(fps);
    this.#connection = new RTCPeerConnection({ iceServers: [] });
    this.#video = document.createElement("video");
    this.#video.muted = this.#video.playsInline = this.#video.autoplay = true;
    this.#connection.ontrack = ({ track, receiver }) => {
      // Delay is worth more here than evenness, which the queue gives.
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      this.#video.srcObject = new MediaStream([track]);
      void this.#video.play().catch(() => undefined); // again when the page may play
      this.#video.requestVideoFrameCallback(this.#onFrame);
    };
    this.#connection.onconnectionstatechange = () => {
      const state = this.#connection.connectionState;
      if (state === "failed" || state === "closed") this.close(`the connection is ${state}`);
    };
    void this.#offer();
  }

  /** The server's answer. */
  answer(sdp: string): void {
    if (this.#over) return;
    this.#connection
      .setRemoteDescription({ type: "answer", sdp })
      .catch((error: unknown) => this.close(asError(error).message));
  }

  /** A message about a picture that comes this way. */
  say(info: FrameInfo, receivedMs: number): void {
    this.#pairing.say(info, receivedMs);
  }

  close(reason = "closed"): void {
    if (this.#over) return;
    this.#over = true;
    this.#connection.close();
    this.#video.srcObject = null;
    this.#events.ended(reason);
  }

  async #offer(): Promise<void> {
    try {
      this.#connection.addTransceiver("video", { direction: "recvonly" });
      await this.#connection.setLocalDescription(await this.#connection.createOffer());
      await this.#gathered();
      const sdp = this.#connection.localDescription?.sdp;
      if (!this.#over && sdp !== undefined) this.#events.offer(sdp);
    } catch (error) {
      this.close(asError(error).message);
    }
  }

  /** The wire knows no trickling: the offer carries all candidates. */
  #gathered(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#connection.iceGatheringState === "complete") return resolve();
      const cancel = this.#events.after(GATHER_MS, resolve);
      this.#connection.onicegatheringstatechange = () => {
        if (this.#connection.iceGatheringState !== "complete") return;
        cancel();
        resolve();
      };
    });
  }

  readonly #onFrame = (_: number, { rtpTimestamp }: VideoFrameCallbackMetadata): void => {
    if (this.#over) return;
    this.#video.requestVideoFrameCallback(this.#onFrame);
    const said = rtpTimestamp === undefined ? null : this.#pairing.picture(rtpTimestamp);
    if (!said) return;
    const decodedMs = this.#events.now();
    const picture = createImageBitmap(this.#video);
    picture.catch(() => undefined); // handled in order below
    this.#order = this.#order.then(async () => {
      try {
        const bitmap = await picture;
        if (this.#over) return bitmap.close();
        this.#events.decoded({ ...said, picture: bitmap, bytes: 0, decodedMs });
      } catch {
        return; // one picture less
      }
    });
  };
}
