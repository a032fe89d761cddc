"""Scenes with the real 0.4.5 client, in its own interpreter: one JSON line for each thing that is seen."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from typing import Any

import grpc
from mas import Agent, AgentMessage, TlsClientConfig
from pydantic import BaseModel

# What the old client logs about a lost stream goes to stderr.
logging.basicConfig(level=logging.WARNING)

ADDR = os.environ["MAS_SERVER_ADDR"]
CERTS = os.environ["CERTS"]


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def of(cls: type[Any], agent_id: str, **options: Any) -> Any:
    tls = TlsClientConfig(
        root_ca_path=f"{CERTS}/ca.pem",
        client_cert_path=f"{CERTS}/agents/{agent_id}.pem",
        client_key_path=f"{CERTS}/agents/{agent_id}.key",
    )
    return cls(agent_id, server_addr=ADDR, tls=tls, **options)


class Count(BaseModel):
    total: int = 0
    note: str = ""


class Ping(BaseModel):
    number: int


class Ponger(Agent[Count]):
    @Agent.on("ping", model=Ping)
    async def on_ping(self, message: AgentMessage, ping: Ping) -> None:
        await self.update_state({"total": self.state.total + 1, "note": f"last {ping.number}"})
        await message.reply("pong", {"number": ping.number, "total": self.state.total})

    @Agent.on("fail")
    async def on_fail(self, message: AgentMessage, _: None) -> None:
        raise ValueError("as intended")

    async def on_message(self, message: AgentMessage) -> None:
        say("received", type=message.message_type, data=message.data, sender=message.sender_id)


async def refusal(call: Any) -> dict[str, Any]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        headers = {name: str(value) for name, value in error.initial_metadata() or ()}
        return {"code": error.code().name, "details": error.details(), "retry": headers.get("retry-after-ms")}
    return {"code": "OK"}


async def ping_pong() -> None:
    beta = of(Ponger, "beta", state_model=Count)
    alpha = of(Agent, "alpha")
    await beta.start()
    await alpha.start()
    for number in range(10):
        reply = await alpha.request("beta", "ping", {"number": number}, timeout=10)
        say("pong", **reply.data)
    say("peers", peers=await alpha.discover(["work"]), none=await alpha.discover(["nothing"]))
    await alpha.stop()
    await beta.stop()
    # A new object of the same agent finds its state.
    again = of(Ponger, "beta", state_model=Count)
    await again.start()
    say("state", total=again.state.total, note=again.state.note)
    await again.reset_state()
    await again.refresh_state()
    say("state", total=again.state.total, note=again.state.note)
    await again.stop()


async def refusals() -> None:
    alpha, limited, stranger = of(Agent, "alpha"), of(Agent, "limited"), of(Agent, "stranger")
    await alpha.start()
    await limited.start()
    sends = {
        "card": alpha.send("beta", "t", {"card": "4111 1111 1111 1111"}),
        "denied": alpha.send("gamma", "t", {}),
        "unknown": alpha.send("nobody", "t", {}),
        "denied request": alpha.request("gamma", "t", {}),
        "nan": alpha.send("beta", "t", {"a": float("nan")}),
        "large": alpha.send("beta", "t", {"a": "x" * 2_000_000}),
        "fine": alpha.send("beta", "t", {"a": 1}),
    }
    for name, call in sends.items():
        say("refusal", of=name, **await refusal(call))
    for _ in range(3):
        await limited.send("beta", "t", {})
    say("refusal", of="rate", **await refusal(limited.send("beta", "t", {})))
    alpha.instance_id = "nowhere"
    say("refusal", of="no session", **await refusal(alpha.send("beta", "t", {})))
    alpha.instance_id = "a b"
    say("refusal", of="instance", **await refusal(alpha.send("beta", "t", {})))
    try:
        await stranger.start()
        say("stranger", started=True)
    except asyncio.TimeoutError:
        say("stranger", started=False)
    await alpha.stop()
    await limited.stop()


async def serve() -> None:
    """Answers pings as beta until its input ends."""
    beta = of(Ponger, "beta", state_model=Count)
    await beta.start()
    say("ready")
    await asyncio.to_thread(sys.stdin.read)
    await beta.stop()
    say("stopped")


async def ask() -> None:
    """Asks beta as alpha, whoever that is."""
    alpha = of(Agent, "alpha")
    await alpha.start()
    for number in range(5):
        reply = await alpha.request("beta", "ping", {"number": number}, timeout=10)
        say("pong", **reply.data)
    await alpha.stop()


async def many() -> None:
    """As many agents as asked for in this process; each says what it gets."""
    first, count = int(sys.argv[2]), int(sys.argv[3])

    class One(Agent[dict[str, Any]]):
        async def on_message(self, message: AgentMessage) -> None:
            say("got", agent=self.id, n=message.data["n"])

    agents = [of(One, f"p{n}") for n in range(first, first + count)]
    for agent in agents:
        await agent.start()
    say("ready")
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(agent.stop() for agent in agents))


SCENES = {"ping_pong": ping_pong, "refusals": refusals, "serve": serve, "ask": ask, "many": many}
asyncio.run(SCENES[sys.argv[1]]())
