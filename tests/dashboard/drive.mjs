// Drives the dashboard of a real fleet in a real browser. See dashboard/README.md.
//
//   node tests/dashboard/drive.mjs [--shots FOLDER] [--only NAME]…

import { mkdirSync } from "node:fs";
import { Fleet, launch } from "./support.mjs";
import * as pages from "./pages.mjs";
import * as proofs from "./proofs.mjs";
import * as behaviour from "./behaviour.mjs";
import * as faults from "./faults.mjs";
import * as roles from "./roles.mjs";
import { crowd } from "./crowd.mjs";

const words = process.argv.slice(2);
const only = words.flatMap((word, at) => word === "--only" ? [words[at + 1]] : []);
const shots = words.includes("--shots") ? words[words.indexOf("--shots") + 1] : null;
if (shots) mkdirSync(shots, { recursive: true });

const browser = await launch();
let failed = 0;
let ran = 0;

async function run(checks, fleet) {
  for (const [name, check] of checks) {
    if (only.length && !only.some((part) => name.includes(part))) continue;
    ran += 1;
    const began = Date.now();
    try {
      await check({ browser, fleet, shots });
      console.log(`ok    ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed += 1;
      console.error(`FAIL  ${name}\n${error.stack ?? error}${error.cause ? `\ncaused by ${error.cause.stack ?? error.cause}` : ""}`);
    }
  }
}

const named = (module) => Object.entries(module).filter(([, value]) => typeof value === "function");
try {
  const fleet = await Fleet.start();
  try {
    // Faults last: they leave the fleet changed.
    await run([...named(pages), ...named(proofs), ...named(behaviour), ...named(roles), ...named(faults)], fleet);
  } finally {
    await fleet.end();
  }
  if (!only.length || only.some((part) => "crowd".includes(part))) {
    const many = await Fleet.start(200);
    try {
      await run([["crowd", crowd]], many);
    } finally {
      await many.end();
    }
  }
} finally {
  await browser.close();
}
console.log(`${ran - failed} of ${ran} checks passed`);
process.exit(failed || !ran ? 1 : 0);
