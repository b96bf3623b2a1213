/** Inputs: the client's messages that carry an id and get receipts. */

import type { ClientMessage, Shown } from "./protocol.js";

export type Input = Exclude<Extract<ClientMessage, { readonly id: number }>, Shown>;

/** An input without what the session adds: its id, and when it happened if that is now. */
export type Draft = DraftOf<Input>;

type DraftOf<I> = I extends Input ? Omit<I, "id" | "at_ms"> & { readonly at_ms?: number } : never;
