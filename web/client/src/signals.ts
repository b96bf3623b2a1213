/**
 * The two ways this package speaks: a `Signal` holds a value and tells who listens when it changes,
 * an `Emitter` passes events on. `subscribe` calls at once with the value, so a signal is also a
 * Svelte store, and one line makes it a React, Preact or Solid one.
 */

export type Unsubscribe = () => void;

/** A value that changes. */
export interface Signal<T> {
  readonly value: T;
  /** Calls `listener` now and after each change; returns the way to stop. */
  subscribe(listener: (value: T) => void): Unsubscribe;
}

/** A signal that its owner can set. Setting the same value again tells nobody. */
export class Cell<T> implements Signal<T> {
  readonly #listeners = new Set<(value: T) => void>();
  #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set value(value: T) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) call(listener, value);
  }

  subscribe(listener: (value: T) => void): Unsubscribe {
    this.#listeners.add(listener);
    listener(this.#value);
    return () => this.#listeners.delete(listener);
  }
}

/** Events by name; a listener that throws keeps no other from hearing. */
export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<(event: never) => void>>();

  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): Unsubscribe {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => all.delete(listener);
  }

  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      call(listener as (event: Events[Name]) => void, event);
    }
  }
}

/** A listener that throws is reported like any uncaught error, and disturbs nobody else. */
function call<T>(listener: (value: T) => void, value: T): void {
  try {
    listener(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
