/**
 * One level that the server must know: the held keys, or the sticks. Changes wait here until they can
 * be sent, oldest first; when many wait, the newest press that is already over and the final level
 * stay, which is what a chunk can show of them. The final level is never dropped, and is sent again
 * until the server says `received`: a key-up cannot be lost.
 */

export interface Change<T> {
  readonly value: T;
  readonly atMs: number;
}

const MAX_WAITING = 8;
const ANSWER_MS = 2500; // no `received` for so long: say it again

export interface LevelKind<T> {
  readonly rest: T;
  same(a: T, b: T): boolean;
}

export class Level<T> {
  readonly #kind: LevelKind<T>;
  #waiting: Change<T>[] = [];
  #value: T;
  #sent: T;
  #open: { readonly id: number; readonly sentMs: number } | null = null;
  #retryAt = Number.POSITIVE_INFINITY;

  constructor(kind: LevelKind<T>) {
    this.#kind = kind;
    this.#value = this.#sent = kind.rest;
  }

  get value(): T {
    return this.#value;
  }

  /** True when the server may believe something else than what is. */
  get unsettled(): boolean {
    return this.#waiting.length > 0 || this.#open !== null || this.#retryAt < Number.POSITIVE_INFINITY;
  }

  /** Notes a change; returns false when it is none. */
  set(value: T, atMs: number): boolean {
    if (this.#kind.same(value, this.#value)) return false;
    this.#value = value;
    this.#waiting.push({ value, atMs });
    if (this.#waiting.length > MAX_WAITING) this.#waiting = compacted(this.#waiting, this.#kind);
    return true;
  }

  /** What to send next, or null. `merge`: only the newest press and the final level. */
  next(nowMs: number, merge: boolean): Change<T> | null {
    if (merge && this.#waiting.length > 2) this.#waiting = compacted(this.#waiting, this.#kind);
    const [first] = this.#waiting;
    if (first) return first;
    const late = this.#open !== null && nowMs - this.#open.sentMs > ANSWER_MS;
    return late || nowMs >= this.#retryAt ? { value: this.#value, atMs: nowMs } : null;
  }

  /** The change that `next` gave went out as input `id`. */
  sent(change: Change<T>, id: number, nowMs: number): void {
    if (this.#waiting[0] === change) this.#waiting.shift();
    this.#sent = change.value;
    this.#open = { id, sentMs: nowMs };
    this.#retryAt = Number.POSITIVE_INFINITY;
  }

  received(id: number): void {
    if (this.#open && id >= this.#open.id) this.#open = null;
  }

  /** The server refused input `id`, which changed nothing there; returns true when it was ours. */
  refused(id: number, retryAtMs: number | null): boolean {
    if (this.#open?.id !== id) return false;
    this.#open = null;
    if (retryAtMs !== null) this.#retryAt = retryAtMs;
    return true;
  }

  /** Somebody listens (again) and should have let go of everything: only what differs is said. */
  restart(nowMs: number): void {
    const atRest = this.#kind.same(this.#value, this.#kind.rest) && this.#kind.same(this.#sent, this.#kind.rest);
    this.#waiting = atRest ? [] : [{ value: this.#value, atMs: nowMs }];
    this.#open = null;
    this.#retryAt = Number.POSITIVE_INFINITY;
  }
}

/** The newest value that is not the final one and not rest, then the final one. */
function compacted<T>(changes: readonly Change<T>[], kind: LevelKind<T>): Change<T>[] {
  const last = changes.at(-1);
  if (!last) return [];
  const press = changes.findLast((change) => change !== last && !kind.same(change.value, kind.rest));
  return press && kind.same(last.value, kind.rest) ? [press, last] : [last];
}
