// Builds into a fresh folder and compares it byte for byte with the committed build.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("..", import.meta.url));
const committed = join(web, "../src/worldline/server/static");
const fresh = mkdtempSync(join(tmpdir(), "worldline-web-"));

function files(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort();
}

try {
  const vite = join(web, "node_modules/vite/bin/vite.js");
  const options = ["build", "--outDir", fresh, "--emptyOutDir", "--logLevel", "warn"];
  execFileSync(process.execPath, [vite, ...options], { cwd: web, stdio: "inherit" });
  const names = [...new Set([...files(fresh), ...files(committed)])].sort();
  const read = (folder, name) => {
    try {
      return readFileSync(join(folder, name));
    } catch {
      return null;
    }
  };
  const differing = names.filter((name) => {
    const [a, b] = [read(fresh, name), read(committed, name)];
    return a === null || b === null || !a.equals(b);
  });
  if (differing.length > 0) {
    console.error(`the committed page is not what its source builds: ${differing.join(", ")}`);
    console.error("run `npm --prefix web run build` and commit src/worldline/server/static");
    process.exitCode = 1;
  } else {
    console.log(`${names.length} files of the page equal a fresh build`);
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
