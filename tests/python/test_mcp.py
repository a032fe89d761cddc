"""`mas-agent mcp`: the official MCP client against a real server, over standard input and output and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import mas_agent
import pytest
from mas_agent import Agent, Credentials, Message, NoReply, Peer
from mas_agent.mcp._peers import MAX_NAME, tools_of
from mas_agent.mcp._words import explain
from mcp import Client, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from world import PATIENCE_S, Process, Server, World

AGENTS = """
permissions:
  - {type: allow_bidirectional, agents: [desk, quotes]}
  - {type: allow, sender: desk, targets: [silent]}
  - {type: allow, sender: limited, targets: [quotes]}
agents:
  - {agent_id: desk, tls_cert_path: certs/agents/desk.pem, tls_key_path: certs/agents/desk.key}
  - {agent_id: limited, rate_limit: {per_minute: 2, per_hour: 100}}
  - {agent_id: silent}
  - {agent_id: stranger}
  - agent_id: quotes
    capabilities: [quote, look up]
    metadata:
      tools:
        quote:
          description: The price of a share now.
          message_type: quote.get
          input_schema: {type: object, properties: {symbol: {type: string}}, required: [symbol]}
          timeout_seconds: 20
"""
# A message that is held longer than that by its session is not delivered to another one.
SETTINGS = "delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [20, 40], max_attempts: 3}\n"
CARD = "4111 1111 1111 1111"
TOKEN = "a-token-of-some-length"
PATHS = os.pathsep.join([str(Path(mas_agent.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
PROGRAM = [sys.executable, "-m", "mas_agent.mcp"]


@pytest.fixture
def world() -> Iterator[World]:
    with World(AGENTS, settings=SETTINGS) as world:
        world.issue("desk", "quotes", "limited", "silent", "stranger")
        yield world


@pytest.fixture
def server(world: World) -> Server:
    return world.server()


def peer(world: World, server: Server, name: str, **options: Any) -> Agent:
    ca, cert, key = world.files(name)
    return Agent(server.addr, credentials=Credentials(ca, cert, key), **options)


def quotes(world: World, server: Server) -> Agent:
    """A peer that answers."""
    agent = peer(world, server, "quotes")

    @agent.on("quote.get")
    async def quote(message: Message, data: dict[str, Any]) -> None:
        await message.reply("quote", {"symbol": data["symbol"], "price": 42})

    @agent.on("look up")
    async def look_up(message: Message, data: dict[str, Any]) -> None:
        await message.reply("found", {"asked": data})

    return agent


def words(world: World, server: Server, name: str = "desk") -> list[str]:
    return ["--agent", name, "--config", str(world.config), "--addr", server.addr, "--look-every", "0.2"]


def over_stdio(world: World, arguments: list[str], **options: Any) -> Client:
    started = StdioServerParameters(command=PROGRAM[0], args=[*PROGRAM[1:], *arguments], env={"PYTHONPATH": PATHS})
    return Client(stdio_client(started), **options)


@contextlib.asynccontextmanager
async def over_http(world: World, arguments: list[str], **options: Any) -> AsyncIterator[Client]:
    process, url = at_http(world, arguments)
    async with Client(url, **options) as client:
        yield client
    assert await asyncio.to_thread(process.stop) == 0


def at_http(world: World, arguments: list[str], env: dict[str, str] | None = None) -> tuple[Process, str]:
    """The program over HTTP, and where."""
    log = world.path / "mcp.log"
    log.unlink(missing_ok=True)
    process = world._start([*PROGRAM, *arguments, "--http", "127.0.0.1:0"], log="mcp.log", env=env)
    give_up = time.monotonic() + PATIENCE_S
    while "listening on " not in (said := world.log("mcp.log")):
        assert time.monotonic() < give_up and process.popen.poll() is None, said
        time.sleep(0.01)
    return process, said.split("listening on ")[1].split()[0]


TRANSPORTS: list[tuple[Callable[..., Any], str]] = [
    (over_stdio, "auto"),
    (over_stdio, "legacy"),
    (over_http, "auto"),
    (over_http, "legacy"),
]
transports = pytest.mark.parametrize(("connect", "mode"), TRANSPORTS, ids=["stdio", "stdio-2025", "http", "http-2025"])


async def call(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    """What a tool that succeeds returns."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error and result.structured_content is not None, result
    [content] = result.content
    assert isinstance(content, types.TextContent)
    assert json.loads(content.text) == result.structured_content
    return result.structured_content


async def refused(client: Client, name: str, **arguments: Any) -> tuple[dict[str, Any], str]:
    """What a tool that fails says, as fields and as text."""
    result = await client.call_tool(name, arguments)
    assert result.is_error and result.structured_content is not None, result
    [content] = result.content
    assert isinstance(content, types.TextContent) and "Traceback" not in content.text
    return result.structured_content, content.text


async def names(client: Client) -> set[str]:
    return {one.name for one in (await client.list_tools(cache_mode="refresh")).tools}


async def until(look: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while not (value := await look()):
        assert time.monotonic() < give_up, f"not in time: {what}"
        await asyncio.sleep(0.02)
    return value


@transports
async def test_discover_ask_send_look_and_reply(world: World, server: Server, connect: Any, mode: str) -> None:
    received: asyncio.Queue[Message] = asyncio.Queue()
    other = quotes(world, server)
    other.on_other(received.put)
    async with other, connect(world, words(world, server), mode=mode) as client:
        found = await call(client, "discover_peers")
        assert found["me"] == "desk"
        [one] = found["peers"]
        assert one["agent_id"] == "quotes" and one["capabilities"] == ["quote", "look up"]
        assert one["metadata"]["tools"]["quote"]["message_type"] == "quote.get"
        assert (await call(client, "discover_peers", capability="nothing"))["peers"] == []

        asked = await call(client, "ask_peer", target="quotes", type="quote.get", payload={"symbol": "X"})
        assert asked == {"sender": "quotes", "type": "quote", "payload": {"symbol": "X", "price": 42}}

        sent = await call(client, "send_message", target="quotes", type="note", payload={"text": "hello"})
        note = await asyncio.wait_for(received.get(), PATIENCE_S)
        assert (note.id, note.sender, note.data) == (sent["message_id"], "desk", {"text": "hello"})

        assert await call(client, "look_at_messages") == {"messages": [], "more": 0}
        await other.send("desk", "news", {"n": 1})
        question = asyncio.create_task(other.request("desk", "question", {"n": 2}, timeout=PATIENCE_S))
        seen: list[dict[str, Any]] = []
        while len(seen) < 2:
            seen += (await call(client, "look_at_messages", wait_seconds=10))["messages"]
        told = {one["type"]: one for one in seen}
        assert told["news"]["payload"] == {"n": 1} and not told["news"]["expects_reply"]
        assert told["question"]["sender"] == "quotes" and told["question"]["expects_reply"]
        replied = await call(
            client, "reply_to_message", message_id=told["question"]["message_id"], type="answer", payload={"n": 3}
        )
        answer = await question
        assert (answer.id, answer.type, answer.data) == (replied["message_id"], "answer", {"n": 3})

        # Nothing twice, and no reply to what asks for none, or twice, or to what never was.
        assert (await call(client, "look_at_messages"))["messages"] == []
        once_more = (await call(client, "look_at_messages", again=1))["messages"]
        assert once_more == [{**seen[-1], "seen_before": True}]
        assert (await refused(client, "reply_to_message", message_id=told["news"]["message_id"]))[0][
            "error"
        ] == "no_reply_expected"
        again, text = await refused(client, "reply_to_message", message_id=told["question"]["message_id"])
        assert again["error"] == "unknown_correlation_id" and "answered already" in text
        assert (await refused(client, "reply_to_message", message_id="x"))[0]["error"] == "unknown_message"


@pytest.mark.parametrize(("connect", "mode"), [TRANSPORTS[0], TRANSPORTS[2]], ids=["stdio", "http"])
async def test_refusals_are_results(world: World, server: Server, connect: Any, mode: str) -> None:
    async with quotes(world, server), connect(world, words(world, server), mode=mode) as client:
        for target in ("stranger", "nobody"):
            told, text = await refused(client, "send_message", target=target, type="note")
            assert told["error"] == "not_authorized" and target in text and "discover_peers" in text
            assert told["message_id"] and told["receipt"]
        told, text = await refused(client, "ask_peer", target="quotes", type="quote.get", payload={"symbol": CARD})
        assert told["error"] == "dlp_blocked" and CARD not in text
        assert told["findings"] == [{"type": "credit_card", "at": "/symbol", "action": "block"}]
        assert "credit_card at /symbol (block)" in text
        sent = await call(client, "send_message", target="quotes", type="look up", payload={"ssn": "078-05-1120"})
        assert sent["findings"] == [{"type": "ssn", "at": "/ssn", "action": "redact"}]

        told, text = await refused(client, "ask_peer", target="silent", type="anything", timeout_seconds=0.2)
        assert told["error"] == "no_reply" and told["message_id"] and "silent" in text

        told, text = await refused(client, "ask_peer", target="quotes", type="nonsense")
        assert (told["error"], told["reason"]) == ("no_reply", "no_handler") and "of this type" in text

        told, text = await refused(client, "ask_peer", target="quotes", kind="x", timeout_seconds=-1)
        assert told["error"] == "invalid_arguments"
        assert all(field in text for field in ("type", "kind", "timeout_seconds"))
        told, text = await refused(client, "quotes__nothing")
        assert told["error"] == "unknown_tool"


async def test_a_rate_limit_says_when_to_try_again(world: World, server: Server) -> None:
    async with over_stdio(world, words(world, server, "limited")) as client:
        for _ in range(2):
            await call(client, "send_message", target="quotes", type="note")
        told, text = await refused(client, "send_message", target="quotes", type="note")
        assert told["error"] == "rate_limited" and 0 < told["retry_after_seconds"] <= 120
        assert "Try again in" in text


@pytest.mark.parametrize("connect", [over_stdio, over_http], ids=["stdio", "http"])
async def test_capabilities_of_peers_are_tools(world: World, server: Server, connect: Any) -> None:
    async with connect(world, words(world, server)) as client, client.listen(tools_list_changed=True) as changes:
        changed = aiter(changes)
        before = await names(client)
        assert before == {"discover_peers", "ask_peer", "send_message", "look_at_messages", "reply_to_message"}
        async with quotes(world, server):
            await asyncio.wait_for(anext(changed), PATIENCE_S)
            tools = {one.name: one for one in (await client.list_tools(cache_mode="refresh")).tools}
            [spaced] = [name for name in tools if name.startswith("quotes__look_up_")]
            assert set(tools) == before | {"quotes__quote", spaced}
            quote = tools["quotes__quote"]
            assert quote.description is not None and quote.description.startswith("The price of a share now.")
            assert quote.input_schema["required"] == ["symbol"]
            reply = await call(client, "quotes__quote", symbol="X")
            assert reply["payload"] == {"symbol": "X", "price": 42} and reply["sender"] == "quotes"
            assert (await call(client, spaced, a=1))["payload"] == {"asked": {"a": 1}}
            told, text = await refused(client, "quotes__quote", symbol=7)
            assert told["error"] == "invalid_arguments" and "$.symbol" in text
        await asyncio.wait_for(anext(changed), PATIENCE_S)
        assert await names(client) == before


@pytest.mark.parametrize("connect", [over_stdio, over_http], ids=["stdio", "http"])
async def test_clients_of_the_older_protocol_are_told_of_changes(world: World, server: Server, connect: Any) -> None:
    heard = asyncio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    async with connect(world, words(world, server), mode="legacy", message_handler=hear) as client:
        assert client.server_capabilities.tools is not None and client.server_capabilities.tools.list_changed
        await names(client)
        for _ in range(2):
            heard.clear()
            async with quotes(world, server):
                await asyncio.wait_for(heard.wait(), PATIENCE_S)
                assert "quotes__quote" in await names(client)
                heard.clear()
            await asyncio.wait_for(heard.wait(), PATIENCE_S)
            assert "quotes__quote" not in await names(client)


@pytest.mark.parametrize("connect", [over_stdio, over_http], ids=["stdio", "http"])
async def test_a_server_that_is_killed_and_comes_back(world: World, server: Server, connect: Any) -> None:
    async with quotes(world, server) as other, connect(world, words(world, server)) as client:
        await other.send("desk", "news", {"n": 1})

        async def has_arrived() -> bool:
            # Looked at by nobody, and so not acknowledged.
            return bool((await call(client, "ask_peer", target="quotes", type="look up"))["payload"])

        assert await has_arrived()
        server.kill()
        asking = asyncio.create_task(
            call(client, "ask_peer", target="quotes", type="quote.get", payload={"symbol": "X"})
        )
        again = world.server(server.addr)
        assert (await asking)["payload"]["price"] == 42
        # What was delivered and not looked at is shown once, however often it was delivered.
        await other.send("desk", "news", {"n": 2})
        seen: list[int] = []
        while 2 not in seen:
            got = await call(client, "look_at_messages", wait_seconds=10)
            seen += [one["payload"]["n"] for one in got["messages"]]
        assert sorted(seen) == [1, 2]
        again.kill()
        told, _ = await refused(client, "ask_peer", target="quotes", type="quote.get", timeout_seconds=0.3)
        assert told["error"] in ("not_connected", "outcome_unknown")
        world.server(server.addr)

        async def is_there() -> bool:
            return "quotes__quote" in await names(client)

        await until(is_there, "the peer is back, and its tool")
        assert (await call(client, "quotes__quote", symbol="Y"))["payload"]["symbol"] == "Y"


async def test_what_nobody_has_looked_at_stays_with_the_server(world: World, server: Server) -> None:
    async with quotes(world, server) as other:
        async with over_stdio(world, words(world, server)) as client:
            for number in range(120):
                await other.send("desk", "news", {"n": number})
            got = await call(client, "look_at_messages", limit=3, wait_seconds=10)
            assert [one["payload"]["n"] for one in got["messages"]] == [0, 1, 2]

            async def is_full() -> bool:
                return bool((await call(client, "look_at_messages", limit=1))["more"] >= 40)

            await until(is_full, "the buffer is full")
        seen = set()
        async with over_stdio(world, words(world, server)) as client:
            while not seen or max(seen) < 119 or len(seen) < 110:
                got = await call(client, "look_at_messages", limit=50, wait_seconds=10)
                assert got["messages"], sorted(seen)
                seen |= {one["payload"]["n"] for one in got["messages"]}
        assert not {0, 1, 2} & seen
    assert world.redis("XLEN", "dlq:messages") == "0"


async def test_a_server_that_is_not_there_yet(world: World) -> None:
    first = world.server()
    first.stop()
    async with over_stdio(world, words(world, first)) as client:
        told, _ = await refused(client, "ask_peer", target="quotes", type="x", timeout_seconds=0.5)
        assert told["error"] == "not_connected"
        assert "ask_peer" in await names(client)
        world.server(first.addr)
        assert (await call(client, "discover_peers"))["me"] == "desk"


async def test_an_agent_that_is_not_in_the_allowlist(world: World, server: Server) -> None:
    ca, cert, key = world.files("outsider")
    arguments = ["--addr", server.addr, "--ca", str(ca), "--cert", str(cert), "--key", str(key)]
    async with over_stdio(world, arguments) as client:
        told, text = await refused(client, "discover_peers")
        assert told["error"] == "agent_not_allowlisted" and "mas.yaml" in text


def fails(world: World, *arguments: str, env: dict[str, str] | None = None, folder: Path | None = None) -> str:
    """What the program says when it does not start."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder or world.path,
        env={**os.environ, "PYTHONPATH": PATHS, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode not in (0, None) and done.stdout == "" and "Traceback" not in done.stderr, done
    return done.stderr


def test_what_keeps_it_from_starting_is_named(world: World, tmp_path: Path) -> None:
    said = fails(world)
    assert "--agent NAME" in said and "MAS_SERVER_ADDR, MAS_TLS_CA, MAS_TLS_CERT, MAS_TLS_KEY" in said
    assert "no agent 'nobody'" in fails(world, "--agent", "nobody")
    assert "port 0" in fails(world, "--agent", "desk")
    assert "no mas.yaml in" in fails(world, "--agent", "desk", folder=tmp_path)
    (world.certs / "agents/desk.key").rename(tmp_path / "desk.key")
    assert "certs/agents/desk.key: No such file" in fails(world, "--agent", "desk", "--addr", "127.0.0.1:1")
    files = ["--agent", "silent", "--addr", "127.0.0.1:1"]
    assert "demands --token-file" in fails(world, *files, "--http", "0.0.0.0:0", "--not-only-loopback")
    assert "--not-only-loopback" in fails(world, *files, "--http", "0.0.0.0:0", env={"MAS_MCP_TOKEN": TOKEN})
    assert "16 characters" in fails(world, *files, "--http", "127.0.0.1:0", env={"MAS_MCP_TOKEN": "short"})
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o644)
    assert "others than its owner can read it" in fails(
        world, *files, "--http", "127.0.0.1:0", "--token-file", str(tmp_path / "token")
    )


def test_a_certificate_of_another_agent_is_refused(world: World, server: Server) -> None:
    ca, cert, key = world.files("silent")
    arguments = ["--agent", "desk", "--addr", server.addr, "--ca", str(ca), "--cert", str(cert), "--key", str(key)]
    process = world._start([*PROGRAM, *arguments], log="mcp.log")
    assert process.popen.wait(PATIENCE_S) == 2
    assert "of agent silent, not of desk" in world.log("mcp.log")


def test_without_the_extra_it_says_how_to_install_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp/__init__.py").write_text("raise ModuleNotFoundError('No module named mcp', name='mcp')\n")
    said = fails(
        world, "--agent", "desk", "--addr", "127.0.0.1:1", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{PATHS}"}
    )
    assert "pip install 'mas-agent[mcp]'" in said


def test_standard_output_holds_the_protocol_alone(world: World, server: Server) -> None:
    """And the program is installed under its name, takes its identity from the environment, and ends on SIGTERM."""
    program = Path(mas_agent.__file__).parent.parent / "bin" / "mas-agent"
    start = [sys.executable, str(program), "mcp"] if program.exists() else PROGRAM
    with Process(
        [*start, "--log", "debug"],
        env=world.env("desk", server.addr) | {"PYTHONPATH": PATHS},
        log=world.path / "mcp.log",
    ) as process:
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        process.say("no JSON")
        process.say(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}))
        answer = json.loads(process.line())
        while answer.get("id") != 1:
            answer = json.loads(process.line())
        assert answer["result"]["capabilities"]["tools"] == {"listChanged": True}
        process.say(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
        asked = {"name": "discover_peers", "arguments": {}}
        process.say(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}))
        answer = json.loads(process.line('"id":2'))
        assert answer["result"]["structuredContent"]["me"] == "desk"
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(PATIENCE_S) == 0
    assert "connected as desk" in world.log("mcp.log")


async def test_http_takes_no_other_names_and_no_other_token(world: World, server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "token").chmod(0o600)
    more = ["--token-file", str(tmp_path / "token"), "--allow-host", "fleet.example"]
    process, url = at_http(world, [*words(world, server), *more])
    right = {"authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(headers=right) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            assert (await call(client, "discover_peers"))["me"] == "desk"
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepts = {"accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=accepts) as http:
        for headers, status in [
            ({}, 401),
            ({"authorization": "Bearer another-token-of-it"}, 401),
            ({**right, "host": "evil.example"}, 421),
            ({**right, "host": "127.0.0.1.evil.example"}, 421),
            ({**right, "origin": "http://evil.example"}, 403),
        ]:
            assert (await http.post(url, json=body, headers=headers)).status_code == status, headers
        named = await http.post(url, json=body, headers={**right, "host": "fleet.example"})
        assert named.status_code not in (401, 403, 421)
    assert await asyncio.to_thread(process.stop) == 0


@pytest.mark.parametrize(
    ("reason", "part"), [("handler_failed", "failed"), ("no_handler", "of this type"), ("news", "handled")]
)
def test_what_the_server_says_of_a_dead_request_is_told(reason: str, part: str) -> None:
    told = explain(NoReply("no reply will come", message_id="m1", reason=reason), "quotes")
    assert told["error"] == "no_reply" and told["reason"] == reason and told["message_id"] == "m1"
    assert "quotes" in told["message"] and part in told["message"]


def test_names_of_tools_are_names_everywhere_and_mean_one_thing() -> None:
    metadata = {"tools": {"c": {"input_schema": {"type": "nonsense"}, "message_type": 7}, "d": "no mapping"}}
    peers = [
        Peer("a__b", ("c", "d"), metadata, "ACTIVE"),
        Peer("a", ("b__c", "x" * 90, "x" * 91, "schön"), {}, "ACTIVE"),
        Peer("b", tuple(f"c{number}" for number in range(300)), {}, "ACTIVE"),
    ]
    tools = tools_of(peers)
    assert len(tools) == 200
    assert all(
        len(name) <= MAX_NAME and name.replace("-", "_").isascii() and name.replace("-", "").isidentifier()
        for name in tools
    )
    asked = {(tool.agent_id, tool.capability) for tool in tools.values()}
    assert {("a__b", "c"), ("a", "b__c"), ("a", "x" * 90), ("a", "x" * 91), ("a", "schön")} <= asked and len(
        asked
    ) == 200
    assert tools["a__b__d"].message_type == "d"
    [wrong] = [tool for tool in tools.values() if (tool.agent_id, tool.capability) == ("a__b", "c")]
    assert wrong.input_schema == {"type": "object"} and wrong.message_type == "c"
    assert tools_of(reversed(peers)) == tools
