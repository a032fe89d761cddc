// A program without OpenTelemetry: asks a question, has a handler that fails, and says what was loaded of it.

import { createRequire } from "node:module";
import { Agent, Reject } from "mas-agent";

await using agent = new Agent();
agent.on("broken", () => {
  throw new Reject("broken by design");
});
await agent.start();
const { data } = await agent.request(process.env["PEER"] ?? "", "question");
const require = createRequire(import.meta.url);
const loaded = Object.keys(require.cache).filter((path) => path.includes("opentelemetry"));
console.log(JSON.stringify({ data, loaded }));
