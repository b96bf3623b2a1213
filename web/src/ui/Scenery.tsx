import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import type { Picture } from "../lib/picture";

/** The chosen picture behind everything; a new one fades in over the one before, once loaded. */
export function Scenery({ picture }: { readonly picture: Picture | null }) {
  const layers = useSignal<readonly Picture[]>([]);
  useEffect(() => {
    if (picture) layers.value = [...layers.value.filter((one) => one.url !== picture.url).slice(-1), picture];
  }, [picture?.url]);
  return (
    <div class="scenery">
      {layers.value.map((one) => (
        <img
          key={one.url}
          src={one.url}
          alt={one === layers.value.at(-1) ? one.name : ""}
          onLoad={(event) => event.currentTarget.classList.add("shown")}
        />
      ))}
    </div>
  );
}
