/** Why a connection ended, in words a visitor can act on. */

import type { ServerError } from "./wire";

export interface Ended {
  readonly code: number;
  readonly reason: string;
  /** The last `error` message of the server, if there was one. */
  readonly error: ServerError | null;
  readonly hadFrames: boolean;
}

export interface Ending {
  readonly title: string;
  readonly detail: string;
  /** Try again without asking: the cause is likely to pass by itself. */
  readonly automatic: boolean;
  /** The same request can succeed later; if false, something must be changed first. */
  readonly retryable: boolean;
}

const LOST = new Set([1001, 1005, 1006, 1012, 1014]);

export function explain(ended: Ended): Ending {
  const error = ended.error?.content ?? "";
  const detail = ended.error?.detail ?? tail(error);
  if (error === "the server is not ready" || ended.code === 1013) {
    return end("The server is not ready", detail || "The model is still being loaded.", { retryable: true });
  }
  if (/already active/.test(error)) {
    return end("All seats are taken", "Another visitor is walking here. Try again in a moment.", {
      retryable: true,
    });
  }
  if (/^invalid generate request/i.test(error)) {
    return end("The server refused this start", detail || "Check the picture, the prompt and the seed.");
  }
  if (/^error during generate loop/i.test(error)) {
    return end("The world broke off", detail || "The model reported an error.", { retryable: true });
  }
  if (ended.code === 1000) {
    const done = ended.reason === "generation complete";
    return end(done ? "The walk is complete" : "The world was closed", "Start again whenever you like.", {
      retryable: true,
    });
  }
  if (ended.code === 1009) {
    return end("That picture is too large", "Choose a smaller picture; the server limits the message size.");
  }
  if (ended.code === 1008) {
    return end("The server refused the connection", detail || error || ended.reason || "No reason was given.");
  }
  if (LOST.has(ended.code)) {
    const lost = ended.hadFrames
      ? "The server keeps no world without a connection, so it begins again from its start picture."
      : "The server cannot be reached. Is it still running?";
    return end(ended.hadFrames ? "Connection lost" : "No connection", lost, {
      retryable: true,
      automatic: ended.hadFrames,
    });
  }
  return end("The world ended", detail || error || ended.reason || `The connection closed with code ${ended.code}.`, {
    retryable: true,
  });
}

function end(
  title: string,
  detail: string,
  { retryable = false, automatic = false }: { retryable?: boolean; automatic?: boolean } = {},
): Ending {
  return { title, detail, retryable, automatic };
}

/** The part of `error during generate loop: why` after the colon. */
function tail(text: string): string {
  const at = text.indexOf(":");
  return at < 0 ? "" : text.slice(at + 1).trim();
}

/** Pause before automatic attempt `n` (from 0), in ms; null when it is time to stop trying. */
export function retryDelay(attempt: number): number | null {
  return attempt < 6 ? Math.min(8000, 500 * 2 ** attempt) : null;
}
