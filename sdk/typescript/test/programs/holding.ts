// An agent for the tests of signals: "job" takes until the agent stops, and replies then; "never" does not end.

import { Agent } from "mas-agent";

const agent = new Agent({ drainTimeout: 20_000 });
agent.events.on("connected", () => console.log("connected"));
process.once("SIGTERM", () => console.log("asked"));
agent.on("job", async (message) => {
  console.log("working");
  await new Promise<void>((resolve) => process.once("SIGTERM", () => resolve()));
  await agent.updateState({ drained: true });
  await message.reply("done");
});
agent.on("never", () => {
  console.log("working");
  return new Promise(() => undefined);
});
await agent.run();
console.log("stopped");
