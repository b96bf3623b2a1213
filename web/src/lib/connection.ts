/** One WebSocket, one session: sends `init` on open, reads messages in order, reports its end once. */

import type { Ended } from "./endings";
import { encode, type Packable } from "./msgpack";
import { MessageReader, type ServerError, type ServerMessage } from "./wire";

const PATH = "v1/realtime_video/generate";
const CLOSE_WAIT_MS = 15_000;
const RECEIVE_FAILURE = 4000; // browsers may not send 1011 themselves

export interface Handlers {
  open(): void;
  message(message: ServerMessage): void;
  end(ended: Ended): void;
}

export function socketUrl(page: string): string {
  const url = new URL(PATH, page);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  url.hash = "";
  return url.href;
}

export class Connection {
  readonly #socket: WebSocket;
  readonly #reader = new MessageReader();
  readonly #handlers: Handlers;
  readonly closed: Promise<void>;
  #error: ServerError | null = null;
  #hadFrames = false;

  constructor(url: string, init: Packable, handlers: Handlers) {
    this.#handlers = handlers;
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => {
      this.#socket.send(encode(init));
      handlers.open();
    };
    this.#socket.onmessage = (event: MessageEvent<unknown>) => this.#receive(event.data);
    this.closed = new Promise((resolve) => {
      this.#socket.onclose = ({ code, reason }) => {
        handlers.end({ code, reason, error: this.#error, hadFrames: this.#hadFrames });
        resolve();
      };
    });
  }

  get buffered(): number {
    return this.#socket.bufferedAmount;
  }

  /** Returns false when the socket is not open; the message is then gone. */
  send(message: Packable): boolean {
    if (this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(encode(message));
    return true;
  }

  /** Closes and waits for the server's answer, because it frees the seat only then. */
  async close(): Promise<void> {
    if (this.#socket.readyState < WebSocket.CLOSING) this.#socket.close(1000, "closed by the visitor");
    const timeout = new Promise<void>((resolve) => setTimeout(resolve, CLOSE_WAIT_MS));
    await Promise.race([this.closed, timeout]);
  }

  #receive(data: unknown): void {
    try {
      if (!(data instanceof ArrayBuffer)) throw new TypeError("text message on a binary protocol");
      const message = this.#reader.read(new Uint8Array(data));
      if (!message) return;
      if (message.type === "error") this.#error = message.error;
      if (message.type === "frames") this.#hadFrames = true;
      this.#handlers.message(message);
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      this.#error = { content: "unreadable message", code: null, detail };
      this.#socket.close(RECEIVE_FAILURE, "unreadable message");
    }
  }
}
