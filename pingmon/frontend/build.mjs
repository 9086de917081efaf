// Bundles src/ into ../static/: one script and one style sheet for all pages, and the theme switch that must run
// before the first paint. File names carry no hash: the pages add a content hash as query (adapters/web/pages.py).
import { build } from "esbuild";
import { mkdir } from "node:fs/promises";

const out = new URL("../static/", import.meta.url).pathname;
await mkdir(out, { recursive: true });
await build({
  entryPoints: ["src/app.ts", "src/theme.ts", "src/app.css", "src/icon.svg"],
  outdir: out,
  bundle: true,
  minify: true,
  target: ["es2022", "chrome110", "firefox115", "safari16.4"],
  format: "iife",
  loader: { ".svg": "copy" },
  entryNames: "[name]",
  legalComments: "linked",
  logLevel: "info",
});
