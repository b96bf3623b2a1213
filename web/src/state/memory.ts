/**
 * What a tab remembers beside its world: the key of a server that asks for one, and the words of
 * its gallery that a world began with. In the tab's own storage: gone with it, never in the address.
 */

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

const ACCESS = "worldline.access";
const PLACE = "worldline.place";

export class Memory {
  readonly #store: Store | null;

  /** `store` may throw where a browser forbids it: nothing is then remembered. */
  constructor(store: () => Store) {
    let found: Store | null = null;
    try {
      found = store();
    } catch {
      // forbidden
    }
    this.#store = found;
  }

  get access(): string | null {
    return this.#read(ACCESS);
  }

  set access(key: string | null) {
    this.#write(ACCESS, key);
  }

  /** The gallery's world that this tab's world began in; null for words of one's own. */
  get place(): string | null {
    return this.#read(PLACE);
  }

  set place(name: string | null) {
    this.#write(PLACE, name);
  }

  #read(name: string): string | null {
    try {
      return this.#store?.getItem(name) ?? null;
    } catch {
      return null;
    }
  }

  #write(name: string, text: string | null): void {
    try {
      if (text === null) this.#store?.removeItem(name);
      else this.#store?.setItem(name, text);
    } catch {
      // not remembered
    }
  }
}
