import { defineConfig } from "vitest/config";

// Fixed names and no timestamps: the same source gives the same bytes, so the committed build can be
// compared with a fresh one. The server answers with an ETag, so fixed names do not go stale.
const conditions = ["worldline-source", "module", "browser", "development|production"];

export default defineConfig({
  base: "./",
  resolve: { conditions },
  ssr: { resolve: { conditions } }, // the tests
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../src/worldline/server/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        entryFileNames: "assets/app.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
      },
    },
  },
  server: {
    proxy: {
      "/v1": { target: "http://127.0.0.1:30000", ws: true },
      "/gallery": "http://127.0.0.1:30000",
      "/readyz": "http://127.0.0.1:30000",
    },
  },
  test: {
    environment: "node",
    include: ["test/**/*.test.ts", "client/test/**/*.test.ts"],
    testTimeout: 60_000, // properties on a machine that has other work
  },
});
