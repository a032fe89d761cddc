// Writes the TypeScript of README.md into test/snippets, to be compiled and run by the tests.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const folder = new URL("../test/snippets/", import.meta.url);
mkdirSync(folder, { recursive: true });
for (const [index, [, code]] of [...readme.matchAll(/```ts\n(.*?)```/gs)].entries()) {
  writeFileSync(new URL(`readme-${index + 1}.ts`, folder), code);
}
