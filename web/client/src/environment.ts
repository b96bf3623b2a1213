/** What this package takes from the browser, in one place, so that tests bring their own. */

import { WorldError } from "./errors.js";

/** The part of a WebSocket that is used. */
export interface SocketLike {
  binaryType: BinaryType;
  readonly readyState: number;
  readonly bufferedAmount: number;
  readonly protocol: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** A place for a few words that outlive a refresh of the page. */
export interface Store {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface Environment {
  /** Milliseconds of a clock that never jumps. */
  now(): number;
  /** Calls `task` once after `ms`; returns the way to call it off. */
  after(ms: number, task: () => void): () => void;
  /** Calls `task` with the next picture of the display; returns the way to call it off. */
  frame(task: () => void): () => void;
  /** Calls `task` when a sleeping page or network comes back; returns the way to stop. */
  woken(task: () => void): () => void;
  /** 0 to 1, for the spread of reconnects. */
  random(): number;
  socket(url: string, protocols: string[]): SocketLike;
  readonly store: Store | null;
  /** False on plain http from another machine, where browsers hide their video decoder. */
  readonly secure: boolean;
}

/** The browser this runs in. */
export function browserEnvironment(): Environment {
  return {
    now: () => performance.now(),
    after: (ms, task) => {
      const timer = setTimeout(task, ms);
      return () => clearTimeout(timer);
    },
    frame: (task) => {
      const request = requestAnimationFrame(task);
      return () => cancelAnimationFrame(request);
    },
    woken,
    random: () => Math.random(),
    socket: (url, protocols) => {
      if (typeof WebSocket === "undefined") {
        throw new WorldError("unreachable", "this browser has no WebSocket");
      }
      return new WebSocket(url, protocols) as SocketLike;
    },
    store: sessionStore(),
    secure: globalThis.isSecureContext === true,
  };
}

function woken(task: () => void): () => void {
  if (typeof document === "undefined") return () => undefined;
  const seen = (): void => void (document.visibilityState === "visible" && task());
  addEventListener("online", task);
  document.addEventListener("visibilitychange", seen);
  return () => {
    removeEventListener("online", task);
    document.removeEventListener("visibilitychange", seen);
  };
}

/** `sessionStorage`, or null where the page may not use it. */
function sessionStore(): Store | null {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}
