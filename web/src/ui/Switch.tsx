interface Props {
  readonly name: string;
  readonly hint?: string;
  readonly on: boolean;
  readonly set: (on: boolean) => void;
}

/** Something that is on or off. */
export function Switch({ name, hint, on, set }: Props) {
  return (
    <label class="switch">
      <span>
        {name}
        {hint && <small>{hint}</small>}
      </span>
      <input
        type="checkbox"
        role="switch"
        aria-label={name}
        checked={on}
        onChange={(event) => set(event.currentTarget.checked)}
      />
      <i aria-hidden="true" />
    </label>
  );
}
