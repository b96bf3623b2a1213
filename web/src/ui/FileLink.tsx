import type { ComponentChildren } from "preact";

import { fetchFile } from "../lib/download";
import type { Walk } from "../state/walk";
import { Icon } from "./Icon";

interface Props {
  readonly walk: Walk;
  readonly url: string;
  /** The file's name on the visitor's disk. */
  readonly name: string;
  /** What it is, for the words that it could not be fetched. */
  readonly what: string;
  readonly children: ComponentChildren;
}

/** A link that saves a file of the server, with the visitor's key where the server asks for one. */
export function FileLink({ walk, url, name, what, children }: Props) {
  const { access } = walk;
  return (
    <a
      class="plain small"
      href={url}
      download={name}
      onClick={(event) => {
        if (access === null) return; // the browser fetches it
        event.preventDefault();
        const failed = (): void => walk.toasts.say(`${what} could not be fetched.`, { tone: "warning" });
        void fetchFile(url, name, access).catch(failed);
      }}
    >
      <Icon name="download" />
      {children}
    </a>
  );
}
