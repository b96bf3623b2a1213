/** The icons of the page: one path each, drawn in the text's colour on a grid of 24. */
const PATHS = {
  arrow: "M5 12h14m-6-6 6 6-6 6",
  back: "M12 6.500 6 12l6 5.500zM19 6.500 13 12l6 5.500z",
  branch: "M6 4v16M6 14c0-4 3-4.500 6-5s6-1.500 6-5m-3 3 3-3.500 3 3.500",
  camera: "M4 8h3.2L8.8 5.500h6.400L16.8 8H20v11H4zM12 16.700a3.4 3.4 0 1 0 0-6.8 3.4 3.4 0 0 0 0 6.800z",
  check: "m5 12.5 4.5 4.500L19 7.5",
  chevron: "m7 10 5 5 5-5",
  close: "m6.5 6.5 11 11m0-11-11 11",
  copy: "M9 9h10v10H9zM15 5H5v10",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M15 9h.01M9 15h.01M12 12h.01",
  download: "M12 4v11m0 0-4.5-4.500M12 15l4.5-4.500M4.5 19.500h15",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 14.800a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.600z",
  flip: "M4.5 12a7.5 7.5 0 0 1 13-5.100M19.5 12a7.5 7.5 0 0 1-13 5.100M17.7 3v4h-4M6.3 21v-4h4",
  full: "M4.5 9V4.500H9M15 4.500h4.500V9M19.5 15v4.500H15M9 19.500H4.500V15",
  hand: "M8 12V6.200a1.5 1.5 0 0 1 3 0V11m0-5.800a1.5 1.5 0 0 1 3 0V11m0-4a1.5 1.5 0 0 1 3 0v7.500c0 3.5-2.3 6-5.8 6-3 0-4.3-1.3-5.6-3.700l-2.1-3.900c-.8-1.5 1.1-2.7 2.2-1.400L8 14",
  keys: "M3 6.500h18v11H3zM6.5 10h.01M10 10h.01M13.5 10h.01M17 10h.01M8 14h8",
  lock: "M6 11h12v8.500H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  mouse: "M12 3.5a5 5 0 0 0-5 5v7a5 5 0 0 0 10 0v-7a5 5 0 0 0-5-5zM12 7v3.5",
  path: "M5 19c5 0 3-6 7-7s2-7 7-7M5 19h.01M19 5h.01",
  pause: "M8.5 6v12M15.5 6v12",
  picture: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 3-3L20 17M15.5 9.500h.01",
  play: "m8 5.5 10.5 6.500L8 18.500z",
  reset: "M5 12a7 7 0 1 0 2.2-5.100M7 3v4h4",
  send: "M12 19V5m-6 6 6-6 6 6",
  settings: "M4 8h9m5 0h2M4 16h2m5 0h9M15.5 10.200a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.400zM8.5 18.200a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.400z",
  share: "M12 15V4m0 0L8 8m4-4 4 4M6 12H5v8h14v-8h-1",
  stop: "M7 7h10v10H7z",
  upload: "M12 16V5m0 0L7.5 9.500M12 5l4.5 4.500M4 16.500V19.500h16v-3",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
