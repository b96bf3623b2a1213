/** Inputs that ask for something and are told what came of it: a second world, a world's file. */

import { WorldError } from "./errors.js";
import type { Branched, Saved } from "./protocol.js";
import type { Receipt } from "./receipts.js";

export type Answer = Branched | Saved;

/** A receipt whose input is answered; `answer` rejects as the others do. */
export interface Answered<A extends Answer> extends Receipt {
  readonly answer: Promise<A>;
}

interface Waiting {
  resolve(answer: Answer): void;
  reject(error: WorldError): void;
}

const MAX_WAITING = 64; // far more than anybody asks for at once; bounds what a silent server costs

export class Answers {
  readonly #waiting = new Map<number, Waiting>();

  /** What is asked for with the input of this receipt. */
  of<A extends Answer>(receipt: Receipt): Answered<A> {
    const { id } = receipt;
    const answer = new Promise<A>((resolve, reject) => {
      this.#waiting.set(id, { resolve: (found) => resolve(found as A), reject });
    });
    answer.catch(() => undefined); // nobody need listen
    receipt.received.catch((error: WorldError) => this.failed(id, error)); // it was never sent, or is refused
    const [oldest] = this.#waiting.keys();
    if (this.#waiting.size > MAX_WAITING && oldest !== undefined) {
      this.failed(oldest, new WorldError("unanswered", "the server never answered this"));
    }
    return { ...receipt, answer };
  }

  settle(answer: Answer): void {
    this.#waiting.get(answer.id)?.resolve(answer);
    this.#waiting.delete(answer.id);
  }

  failed(id: number, error: WorldError): void {
    this.#waiting.get(id)?.reject(error);
    this.#waiting.delete(id);
  }

  /** The connection is gone. */
  clear(error: WorldError): void {
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }
}
