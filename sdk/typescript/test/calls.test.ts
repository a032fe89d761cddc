// The life of a call.

import assert from "node:assert/strict";
import { behaviour } from "./behaviour.js";
import { World } from "./world.js";

const world = await World.make();

behaviour("handler.calls", "smoke", async () => {
  const [a, b] = world.names(2);
  const [asks, answers] = [world.agent(a), world.agent(b)];
  answers.on("question", async (message) => {
    await message.reply("answer", { said: message.data["text"] });
  });
  await answers.start();
  await asks.start();
  const reply = await asks.request(b, "question", { text: "Why?" }, { timeout: 5000 });
  assert.deepEqual(reply.data, { said: "Why?" });
  const sent = await asks.send(b, "nothing", { a: 1 });
  console.log(sent, await asks.discover());
  console.log(await world.oneDead(b));
  console.log(await asks.updateState({ a: 1, b: "x" }), await asks.getState());
  console.log(await asks.changeState((s) => ({ a: Number(s.fields["a"]) + 1 })), await asks.getState());
});
