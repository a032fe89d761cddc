// A tool of the assistant: says how long a text is.
import { Agent } from "mas-agent";
import { z } from "zod";

const agent = new Agent(); // address, certificate and instance come from `mas run`

agent.on("call", z.object({ text: z.string() }), async (message, { text }) => {
  await message.reply("result", { characters: text.length, words: text.split(/\s+/).filter(Boolean).length });
});

await agent.run();
