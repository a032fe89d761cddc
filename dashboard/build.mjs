// Builds the dashboard into src/admin/page, or with --compare says whether what is there is what would be built.

import { build } from "esbuild";
import { readFile, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const here = (path) => new URL(path, import.meta.url);
const PAGE = here("../src/admin/page/");
/// All three files together, compressed: what a phone loads.
const MAX_GZIP_BYTES = 60 * 1024;

const built = await build({
  absWorkingDir: here(".").pathname,
  entryPoints: { app: "src/main.tsx" },
  outdir: "out",
  write: false,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome123", "firefox128", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "warning",
});

const licences = await readFile(here("src/licences.txt"), "utf8");
const files = new Map([["index.html", await readFile(here("src/index.html"))]]);
for (const file of built.outputFiles) {
  const name = file.path.split("/").pop();
  files.set(name, Buffer.from(name.endsWith(".js") ? `/*!\n${licences}*/\n${file.text}` : file.text));
}

let sum = 0;
for (const [name, bytes] of [...files].sort()) {
  const packed = gzipSync(bytes, { level: 9 }).length;
  sum += packed;
  console.log(`${name.padEnd(12)} ${String(bytes.length).padStart(8)} bytes ${String(packed).padStart(7)} gzip`);
}
console.log(`${"all".padEnd(12)} ${" ".repeat(14)} ${String(sum).padStart(7)} gzip, at most ${MAX_GZIP_BYTES}`);
if (sum > MAX_GZIP_BYTES) {
  console.error("build: the dashboard is larger than it may be");
  process.exit(1);
}

if (process.argv.includes("--compare")) {
  const differ = [];
  for (const [name, bytes] of files) {
    const there = await readFile(new URL(name, PAGE)).catch(() => null);
    if (!there?.equals(bytes)) differ.push(name);
  }
  if (differ.length > 0) {
    console.error(`build: src/admin/page is not what the sources make: ${differ.join(", ")}; run \`npm run build\` in dashboard/`);
    process.exit(1);
  }
  console.log("src/admin/page is what the sources make");
} else {
  for (const [name, bytes] of files) await writeFile(new URL(name, PAGE), bytes);
}
