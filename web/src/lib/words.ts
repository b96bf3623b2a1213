/** Why a world could not begin or went away, and what is announced, in words a visitor can act on. */

/** What to offer first: the same again, a key, or another choice of start. */
export type Offer = "again" | "key" | "start";

export interface Ending {
  readonly title: string;
  readonly detail: string;
  readonly code: string;
  readonly offer: Offer;
  /** The world may still be there: trying again goes back to it. */
  readonly resumes: boolean;
}

/** The end as the client library reports it. */
export interface End {
  readonly code: string;
  readonly message: string;
  readonly error: {
    readonly retryable: boolean;
    readonly expected?: string | undefined;
    readonly got?: string | undefined;
  } | null;
}

interface Words {
  readonly title: string;
  /** Without one the server's own message is shown, which knows the particulars. */
  readonly detail?: string;
  readonly offer?: Offer;
}

const PICTURE = "Choose another picture";
const BROKE = "The world broke off";
const GONE: Words = { title: "This world is gone", detail: "It has ended, or there never was one of this name." };
const CLOSED: Words = { title: "The world was closed", detail: "Start again whenever you like." };
const REFUSED: Words = { title: "The server refused this start" };
const UNUSABLE: Words = { title: "The model cannot be used" };
const DISAGREE: Words = {
  title: "Page and server disagree",
  detail: "They may be of different releases: load the page again.",
};

/** By `code`; a test holds this list against the server's and the client library's. */
export const WORDS: Readonly<Record<string, Words>> = {
  // ends that are no failure
  complete: { title: "The walk is complete", detail: "This world has the length it was asked for.", offer: "again" },
  left: CLOSED,
  idle: { title: "The world went to sleep", detail: "Nobody walked in it for a while.", offer: "again" },
  lifetime: { title: "This walk has ended", detail: "A world here lives for a limited time.", offer: "again" },
  holder_gone: { title: "Its walker is gone", detail: "Whoever walked this world did not come back." },
  taken_over: { title: "Opened elsewhere", detail: "This world goes on in another window, where it was opened last." },
  draining: { title: "The server is stopping", detail: "It takes nobody in now. Try again in a moment.", offer: "again" },
  stopped: { title: "The server has stopped", detail: "Try again when it is back.", offer: "again" },
  // the door
  unauthorized: { title: "This server asks for a key", offer: "key", detail: "No key was given, or this one is not known here." },
  forbidden: { title: "Not from this page", detail: "The server does not accept visitors that come from this address." },
  access: { title: "The door stays closed", offer: "key" },
  rate_limited: { title: "Too much at once", detail: "Wait a few seconds, then try again.", offer: "again" },
  client_limit: { title: "One world at a time", detail: "You already have as many worlds open here as one visitor may. Close one first.", offer: "again" },
  capacity: { title: "All places are taken", detail: "Try again in a moment.", offer: "again" },
  timed_out: { title: "It took too long", offer: "again" },
  // what was asked for
  too_large: { title: "That is too large", detail: "Choose a smaller picture: the server limits what it takes." },
  invalid_image: { title: PICTURE },
  invalid_prompt: { title: "Choose other words" },
  invalid_control: { title: "That movement cannot be used" },
  invalid_shape: { title: PICTURE },
  invalid_config: { title: "These options do not go together" },
  invalid_snapshot: { title: "This place cannot be gone back to", detail: "It is no part of the walk, or too far back." },
  snapshot_damaged: { title: "This snapshot is damaged", detail: "It was cut short or changed, or is no snapshot." },
  snapshot_version: { title: "A snapshot of another version" },
  invalid_world: { title: "This world cannot be walked" },
  world_damaged: { title: "This file is damaged", detail: "It was cut short or changed, or is no world file." },
  world_version: { title: "A world from the future", detail: "It was saved by a later version than this server's." },
  world_weights: { title: "A world of another model", detail: "It was made with other weights than this server has loaded." },
  invalid_input: REFUSED,
  invalid_generate_request: REFUSED,
  // the world
  unknown_world: GONE,
  session_missing: GONE,
  session_closed: CLOSED,
  session_error: { title: BROKE },
  no_controls: { title: "Somebody else walks", detail: "Ask for the controls first." },
  aborted: { title: BROKE, detail: "A piece of it was given up. Try again.", offer: "again" },
  generation_error: { title: BROKE, detail: "The model could not draw what comes next. It is the server's fault, not yours.", offer: "again" },
  worker_error: { title: BROKE, offer: "again" },
  worker_died: { title: "The model went down", detail: "The server starts it again by itself. Try again in a moment.", offer: "again" },
  // the model's files
  checkpoint_error: UNUSABLE,
  unknown_layout: UNUSABLE,
  checkpoint_keys: UNUSABLE,
  unsafe_file: UNUSABLE,
  // the wire
  error: { title: "Something went wrong", offer: "again" },
  protocol_error: DISAGREE,
  invalid_event: DISAGREE,
  unreachable: { title: "No connection", detail: "The server cannot be reached. Is it still running?", offer: "again" },
  unanswered: { title: "No answer", detail: "The server never answered an input. Come back to the same world.", offer: "again" },
  connection_lost: { title: "Connection lost", detail: "It could not be made again in time.", offer: "again" },
  unreadable: DISAGREE,
  wrong_server: { title: "Another kind of server", detail: "What answers at this address does not speak with this page." },
  not_open: { title: "No world is open", detail: "Start again whenever you like." },
  closed: CLOSED,
  bad_file: { title: "This file cannot be used" },
};

export function explain({ code, message, error }: End): Ending {
  const words = Object.hasOwn(WORDS, code) ? WORDS[code] : undefined;
  const retryable = error?.retryable ?? false;
  const offer = words?.offer ?? (retryable ? "again" : "start");
  const title = words?.title ?? (retryable ? "The world went away" : "The server refused this");
  const expected = error?.expected && `expected ${error.expected}`;
  const got = error?.got && `got ${error.got}`;
  const told = [message.trim() || "no reason was given", expected, got].filter(Boolean).join("; ");
  return { title, detail: words?.detail ?? sentence(told), code, offer, resumes: retryable };
}

/** What is announced, by its `code`; null for what is shown in another way. */
export function announce(code: string, message: string): string | null {
  return Object.hasOwn(NOTICES, code) ? (NOTICES[code] ?? null) : sentence(message);
}

export const NOTICES: Readonly<Record<string, string | null>> = {
  idle: "Are you still there? This world closes unless you move.",
  lifetime: "A world here lives for a limited time. This one closes.",
  holder_gone: "Its walker lost the connection. The world waits.",
  holder_back: "Its walker is back.",
  init_timeout: null, // this page enters at once
  heartbeat: null, // the client library answers
  warming_up: "The model is warming up.",
  draining: "The server is being stopped. This world closes.",
  control_asked: null, // a question with buttons
  recording_limit: "The recording has reached its limit and ended.",
  recording_failed: "The recording has ended: the server cannot go on with it.",
  recovering: null, // lies over the picture until it is over
  other_model: "This world was made elsewhere. Here it may look different.",
  recovered: "The model is back, and so is this world.",
};

export function sentence(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}
