// An agent that answers questions with a language model whose tools are other agents: those that the server lets it see and
// that offer "tool". The model here is a stand-in that runs without a network; put a call of yours in its place.
import { Agent, NoReply, Refused } from "mas-agent";
import { z } from "zod";

type Turn = { role: "user" | "assistant" | "tool"; text: string };
type Step = { tool: string; input: Record<string, unknown> } | { text: string };

/** Longest conversation for one question. */
const MAX_STEPS = 8;

const agent = new Agent(); // address, certificate and instance come from `mas run`
const Question = z.object({ text: z.string() });

/** The stand-in: asks each tool once, then answers with what they said. A real one chooses by their descriptions. */
async function complete(turns: Turn[], tools: Map<string, string>): Promise<Step> {
  const asked = turns.filter(({ role }) => role === "assistant").map(({ text }) => text);
  const next = [...tools.keys()].find((tool) => !asked.includes(tool));
  if (next !== undefined) return { tool: next, input: { text: turns[0]?.text } };
  const said = turns.filter(({ role }) => role === "tool").map(({ text }) => text);
  return { text: said.join("; ") || "I have no tools." };
}

/** What a tool says, or why it says nothing: the model is told, and decides. */
async function call(tool: string, input: Record<string, unknown>, signal: AbortSignal): Promise<string> {
  try {
    const reply = await agent.request(tool, "call", input, { timeout: 10_000, signal });
    return JSON.stringify(reply.data);
  } catch (error) {
    if (error instanceof NoReply) return `${tool} did not answer`;
    if (error instanceof Refused && error.retryAfter === undefined) return `${tool} cannot be asked: ${error.detail}`;
    throw error; // a limit or a lost connection: the question comes again later
  }
}

agent.on("question", Question, async (message, { text }) => {
  const peers = await agent.discover(["tool"]);
  const tools = new Map(peers.map(({ agentId, metadata }) => [agentId, String(metadata["description"] ?? "")]));
  const turns: Turn[] = [{ role: "user", text }];
  for (let step = 0; step < MAX_STEPS; step += 1) {
    const next = await complete(turns, tools);
    if ("text" in next) {
      await message.reply("answer", { text: next.text });
      return;
    }
    turns.push({ role: "assistant", text: next.tool });
    turns.push({ role: "tool", text: `${next.tool}: ${await call(next.tool, next.input, message.signal)}` });
  }
  await message.reply("answer", { text: "This takes too many steps." });
});

await agent.run();
