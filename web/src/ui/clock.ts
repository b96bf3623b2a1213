import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

/** `performance.now()`, read again every `periodMs` while the component is shown. */
export function useClock(periodMs: number): number {
  const now = useSignal(performance.now());
  useEffect(() => {
    now.value = performance.now();
    const timer = setInterval(() => (now.value = performance.now()), periodMs);
    return () => clearInterval(timer);
  }, [periodMs]);
  return now.value;
}

/** Whole seconds until `at`, never negative. */
export function secondsUntil(at: number, now: number): number {
  return Math.max(0, Math.ceil((at - now) / 1000));
}
