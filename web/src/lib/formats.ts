/** Which picture formats this browser can show here, and why one of them cannot. */

import type { Format } from "@worldline/client";

const VIDEO = typeof VideoDecoder === "function";

/** Best first. */
export const SUPPORTED: readonly Format[] = VIDEO
  ? ["h264", "jpeg", "webp", "raw"]
  : ["jpeg", "webp", "raw"];

/** Why a format cannot be chosen; null when it can. */
export function whyNot(format: Format | "auto"): string | null {
  if (format !== "h264" || VIDEO) return null;
  return globalThis.isSecureContext === false
    ? "Video needs a secure page: open this server by https (serve --tls self-signed) or on its own machine. Pictures travel as JPEG meanwhile."
    : "This browser has no video decoder for pages. Pictures travel as JPEG.";
}
