/**
 * What can go wrong, as one type.
 *
 *     WorldError               code, message, retryable, and what was expected and came
 *     ├── code of the server   `error` messages: `code` is the server's own word
 *     └── code of this side    `ClientCode`: `connection_lost`, `unreachable`, ...
 */

import type { Failure } from "./protocol.js";

/** Codes that this side makes; every other code is the server's. */
export type ClientCode =
  | "unreachable" // no connection could be made
  | "connection_lost" // it broke, and with it what was under way
  | "unreadable" // the server sent what this client cannot read
  | "wrong_server" // it speaks another protocol or version
  | "not_open" // no world is open to receive this
  | "unanswered" // thousands of later inputs were sent, and this one has no receipt
  | "closed" // the visitor left
  | "bad_file"; // a file of a path or picture that cannot be used

export interface ErrorDetails {
  readonly retryable?: boolean | undefined;
  readonly fatal?: boolean | undefined;
  readonly id?: number | undefined;
  readonly expected?: string | undefined;
  readonly got?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  /** WebSocket close code, when a close brought it. */
  readonly closeCode?: number | undefined;
}

/** A refusal or a failure, of the server or of this side. */
export class WorldError extends Error {
  override readonly name = "WorldError";
  readonly code: string;
  /** The same request can succeed later; if false, something must be changed first. */
  readonly retryable: boolean;
  readonly fatal: boolean;
  /** The input it answers, if it answers one. */
  readonly id: number | undefined;
  readonly expected: string | undefined;
  readonly got: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly closeCode: number | undefined;

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message);
    this.code = code;
    this.retryable = details.retryable ?? false;
    this.fatal = details.fatal ?? false;
    this.id = details.id;
    this.expected = details.expected;
    this.got = details.got;
    this.retryAfterMs = details.retryAfterMs;
    this.closeCode = details.closeCode;
  }

  static of(failure: Failure): WorldError {
    return new WorldError(failure.code, failure.message, {
      retryable: failure.retryable,
      fatal: failure.fatal,
      id: failure.id,
      expected: failure.expected,
      got: failure.got,
      retryAfterMs: failure.retry_after_ms,
    });
  }
}

/** An error of any kind as a `WorldError`. */
export function asWorldError(error: unknown, code: ClientCode): WorldError {
  return error instanceof WorldError ? error : new WorldError(code, asError(error).message);
}

/** What was thrown, which need not be an error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
