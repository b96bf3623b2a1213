/** Runs `page.ts` in a headless Chromium and returns its answer. Null where there is no browser. */

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

import type { Answer } from "./page.js";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const FLAGS = [
  "--headless=new", "--no-sandbox", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage",
  "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--force-device-scale-factor=1",
  "--host-resolver-rules=MAP insecure.test 127.0.0.1", // a name that is no secure context
  "--disable-background-networking", "--disable-component-update",
];

export function findBrowser(): string | null {
  for (const name of NAMES) {
    try {
      return execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim();
    } catch {
      continue;
    }
  }
  if (process.env["WORLDLINE_REQUIRE_BROWSER"] === "1") throw new Error(`no browser: ${NAMES.join(", ")}`);
  return null;
}

export async function runPage(browser: string, timeoutMs: number): Promise<Answer> {
  const script = await bundle();
  const folder = mkdtempSync(join(tmpdir(), "worldline-client-"));
  let answered!: (answer: Answer) => void;
  const answer = new Promise<Answer>((resolve) => (answered = resolve));
  const server = createServer((request, response) => {
    if (request.method !== "POST") {
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      response.end(`<!doctype html><body><script>${script}</script>`);
      return;
    }
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      response.end();
      answered(JSON.parse(Buffer.concat(parts).toString()) as Answer);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const args = [...FLAGS, `--user-data-dir=${folder}`, `http://127.0.0.1:${port}/`];
  const chromium = spawn(browser, args, { stdio: "ignore", detached: true }); // a group, for its children
  const ended = new Promise<void>((resolve) => chromium.once("exit", () => resolve()));
  const timeout = AbortSignal.timeout(timeoutMs);
  const late = new Promise<never>((_, reject) => {
    timeout.addEventListener("abort", () => reject(new Error("the browser did not answer in time")));
  });
  try {
    const found = await Promise.race([answer, late]);
    const { error } = found as { error?: string };
    if (error !== undefined) throw new Error(`in the browser: ${error}`);
    return found;
  } finally {
    if (chromium.pid !== undefined) process.kill(-chromium.pid, "SIGKILL");
    await ended;
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

async function bundle(): Promise<string> {
  const entry = fileURLToPath(new URL("page.ts", import.meta.url));
  const result = await build({
    configFile: false,
    logLevel: "error",
    build: { write: false, minify: false, target: "es2022", lib: { entry, formats: ["iife"], name: "page" } },
  });
  const [first] = Array.isArray(result) ? result : [result];
  const output = first && "output" in first ? first.output[0] : null;
  if (!output) throw new Error("the bundle is empty");
  return output.code.replaceAll("</script", "<\\/script");
}
