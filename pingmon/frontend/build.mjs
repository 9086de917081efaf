// Bundles src/ into ../static/: one script and one style sheet for all pages, and the theme switch that must run
// before the first paint. File names carry no hash: the pages add a content hash as query (adapters/web/pages.py).
import { build } from "esbuild";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const out = new URL("../static/", import.meta.url).pathname;
await mkdir(out, { recursive: true });
const { metafile } = await build({
  entryPoints: ["src/app.ts", "src/theme.ts", "src/app.css", "src/icon.svg"],
  outdir: out,
  bundle: true,
  minify: true,
  metafile: true,
  target: ["es2022", "chrome110", "firefox115", "safari16.4"],
  format: "iife",
  loader: { ".svg": "copy" },
  entryNames: "[name]",
  legalComments: "none",
  logLevel: "info",
});
await writeFile(join(out, "licenses.txt"), await licenses(Object.keys(metafile.inputs)));

/** The licence of every package that went into the bundle, as its authors ask. */
async function licenses(inputs) {
  const found = inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
  const names = [...new Set(found)].filter(Boolean).sort();
  const texts = names.map(async (name) => {
    const folder = join("node_modules", name);
    const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} comes without a licence file; find out its terms before bundling it.`);
    return `${name}\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`;
  });
  return (await Promise.all(texts)).join(`\n${"-".repeat(78)}\n\n`);
}
