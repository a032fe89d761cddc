// A program that ends when it is through, with nothing said of it.

import { Agent } from "mas-agent";

const agent = new Agent();
await agent.start();
await agent.send(process.env["PEER"] ?? "", "note", {});
await agent.request(process.env["PEER"] ?? "", "question", {}, { timeout: 20 }).catch(() => undefined);
await agent.stop();
