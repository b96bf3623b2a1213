export function Brand() {
  return (
    <span class="brand">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <path d="M3 22c6 0 6-12 12-12s5 14 9 14 4-5 5-8" />
        <circle cx="15" cy="10" r="3" />
      </svg>
      Worldline
    </span>
  );
}
