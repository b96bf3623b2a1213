import type { Walk } from "../state/walk";

type Stick = NonNullable<Walk["sticks"]["value"]["move"]>;

/** Touch sticks: they stand where the thumbs come down, and two faint rings say so before. */
export function Sticks({ walk }: { readonly walk: Walk }) {
  const { move, look } = walk.sticks.value;
  return (
    <div class="sticks" aria-hidden="true">
      <Ring side="move" name="walk" stick={move} />
      <Ring side="look" name="look" stick={look} />
    </div>
  );
}

function Ring({ side, name, stick }: { side: string; name: string; stick: Stick | null }) {
  if (!stick) {
    return (
      <span class={`ring resting ${side}`}>
        <i />
        <b>{name}</b>
      </span>
    );
  }
  const { x, y, dx, dy, radius } = stick;
  return (
    <span class={`ring ${side}`} style={{ left: `${x}px`, top: `${y}px`, "--r": `${radius}px` }}>
      <i style={{ transform: `translate(${dx}px, ${dy}px)` }} />
    </span>
  );
}
