"""A fleet for the dashboard's test: servers, agents that talk, are refused, fail and are absent. It says where it is in one JSON
line, and does what lines on its input say, each answered by one JSON line, until the input ends.

    first | second        starts another server of that name on the same Redis
    kill NAME | stop NAME | hang NAME | wake NAME
    hang redis | wake redis
    talk N                planner sends N messages to worker
    say FROM TO TYPE JSON one message; its id, or null where it was refused
    redis WORDS…          what Redis answers
    mas WORDS…            what the command prints
    elsewhere             a server whose admin listener is not on a loopback address: operators' certificates are needed
    disk full | disk free the anchor's file system takes nothing more, or does again; false where none could be mounted
    ended NAME            an agent tries to connect with a certificate that has ended
    short                 a server whose certificate ends within some seconds
    doctor [ADDR]         what `mas doctor --json` says, of the first server or of that one
    rules                 another configuration for servers that start or reload from now on
"""

from __future__ import annotations

import asyncio
import json
import datetime
import ipaddress
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))

from mas_agent import Agent, Credentials, Message, Refused, Reject, Retry
from certificates import issue
from cryptography import x509
from world import UNLIMITED, Server, World, binary

# Between two rounds of talk.
ROUND_S = 0.25
# Rounds that one `talk` makes at once.
AT_ONCE = 50

GATEWAY = f"{UNLIMITED}, circuit_breaker: {{failure_threshold: 3, timeout_seconds: 3600}}, audit: {{archive_dir: archive, anchor_path: anchor/anchor.jsonl}}"
SETTINGS = """admin_listen_addr: 127.0.0.1:0
delivery: {max_attempts: 2, retry_backoff_ms: [20]}
operators:
  - {name: olga, role: operator}
  - {name: rita, role: reader}
"""
SMALL = """
permissions:
  - {type: allow, sender: planner, targets: [worker, archive, flaky, absent]}
  - {type: allow, sender: worker, targets: [planner, archive]}
  - {type: allow, sender: archive, targets: [planner]}
  - {type: allow, sender: absent, targets: [planner]}
agents:
  - {agent_id: planner, capabilities: [plan], metadata: {team: logistics}}
  - {agent_id: worker, capabilities: [ocr, translate]}
  - {agent_id: archive}
  - {agent_id: vault}
  - {agent_id: flaky}
  - {agent_id: absent}
"""
# More than the anchor of a test takes.
ROOM = "size=64m"
# How long the certificate of a server holds that is to be seen ending.
SHORT = datetime.timedelta(seconds=6)
# How long an agent that is refused tries.
TRY_S = 2
# What a dead letter carries: a number that the built-in rules redact, and must not be shown to anybody.
SECRET = "078-05-1120"


def many(count: int) -> str:
    """A fleet of so many agents in teams, with a hub."""
    teams = 8
    lines = ["permissions:", "  - {type: allow_wildcard, agent_id: hub}"]
    for number in range(count - 1):
        near = [f"agent-{other:03}" for other in range(count - 1) if other % teams == number % teams and other != number]
        lines.append(f"  - {{type: allow, sender: agent-{number:03}, targets: [{', '.join(['hub', *near[:12]])}]}}")
    lines += ["agents:", "  - {agent_id: hub}"]
    lines += [f"  - {{agent_id: agent-{number:03}}}" for number in range(count - 1)]
    return "\n".join(lines) + "\n"


class Disk:
    """A file system of its own in memory, that can be full; needs root."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ROOM, "tmpfs", str(path)], capture_output=True, check=False)
        self.is_mounted = done.returncode == 0

    def fill(self) -> bool:
        stat = os.statvfs(self.path)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        return self._remount(f"size={max(used, 4096)}")

    def free(self) -> bool:
        return self._remount(ROOM)

    def _remount(self, size: str) -> bool:
        words = ["mount", "-o", f"remount,{size}", str(self.path)]
        return self.is_mounted and subprocess.run(words, capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


class Fleet:
    def __init__(self, world: World) -> None:
        self.world = world
        self.disk = Disk(world.path / "anchor")
        # What a world starts first.
        self.redis = world._processes[0]
        self.servers: dict[str, Server] = {}
        self.agents: dict[str, Agent] = {}

    def start(self, name: str) -> dict[str, Any]:
        server = self.servers[name] = self.world.server()
        return {"admin": server.ready["admin_addr"], "agents": server.addr, "pid": server.pid}

    async def connect(self, *names: str) -> None:
        addr = next(iter(self.servers.values())).addr
        for name in names:
            ca, cert, key = self.world.files(name)
            self.agents[name] = Agent(addr, credentials=Credentials(ca, cert, key))
        self.handle()
        await asyncio.gather(*(agent.start() for agent in self.agents.values()))

    def handle(self) -> None:
        if worker := self.agents.get("worker"):

            @worker.on_raw("job")
            async def job(_: Message) -> None:
                return None

            @worker.on_raw("question")
            async def question(message: Message) -> None:
                await message.reply("answer", {"text": "42"})

        for name, agent in self.agents.items():
            if name != "flaky":

                @agent.on_other
                async def other(_: Message) -> None:
                    return None

        if flaky := self.agents.get("flaky"):

            @flaky.on_raw("job")
            async def fail(message: Message) -> None:
                if message.data.get("again"):
                    raise Retry("the disk is full")
                raise Reject("cannot parse the order")

    async def say(self, sender: str, target: str, kind: str, data: dict[str, Any]) -> str | None:
        """The message's id; None where it was refused."""
        try:
            return (await self.agents[sender].send(target, kind, data)).message_id
        except Refused:
            return None

    async def everything(self) -> dict[str, Any]:
        """One of each: what is allowed, redacted, blocked, denied, waits, dies."""
        done = {
            "allowed": await self.say("planner", "worker", "job", {"n": 1}),
            "redacted": await self.say("planner", "worker", "job", {"ssn": SECRET}),
            "archived": await self.say("worker", "archive", "result", {"text": "done"}),
        }
        await self.agents["planner"].request("worker", "question", {"text": "Why?"}, timeout=10)
        await self.say("planner", "archive", "job", {"card": "4111 1111 1111 1111"})
        for _ in range(3):
            await self.say("planner", "vault", "job", {})
        await self.say("worker", "vault", "peek", {})
        await self.say("planner", "nobody", "job", {})
        for number in range(4):
            await self.say("planner", "absent", "job", {"n": number})
        done["dies"] = await self.say("planner", "flaky", "job", {"order": 17, "customer": {"ssn": SECRET}})
        for number in range(3):
            await self.say("planner", "flaky", "job", {"again": True, "n": number})
        return done

    async def talk(self, count: int) -> None:
        for first in range(0, count, AT_ONCE):
            some = range(first, min(count, first + AT_ONCE))
            await asyncio.gather(*(self.say("planner", "worker", "job", {"n": n}) for n in some))

    async def keep_talking(self) -> None:
        while True:
            try:
                await self.talk(5)
                await self.say("worker", "archive", "result", {"text": "done"})
                await self.say("planner", "vault", "job", {})
            except Exception as error:  # A server that was killed: the agent connects again, and the talk goes on.
                print(f"talk: {error!r}", file=sys.stderr)
            await asyncio.sleep(ROUND_S)

    async def crowd(self) -> None:
        """Some of a large fleet's traffic."""
        names = [name for name in self.agents if name != "hub"]
        for at, name in enumerate(names):
            await self.say("hub", name, "job", {"n": at})
            await self.say(name, "hub", "result", {"n": at})
            for step in (8, 16, 3):
                await self.say(name, f"agent-{(at + step) % 199:03}", "job", {"n": at})

    async def ended(self, name: str) -> None:
        """An agent knocks with a certificate that ended an hour ago."""
        uri = x509.UniformResourceIdentifier(f"spiffe://mas/agent/{name}")
        to = self.world.path / f"{name}-ended"
        cert, key = issue(self.world.certs, to, [uri], not_after=-datetime.timedelta(hours=1))
        addr = next(iter(self.servers.values())).addr
        agent = Agent(addr, credentials=Credentials(self.world.certs / "ca.pem", cert, key))
        try:
            await asyncio.wait_for(agent.start(), TRY_S)
        except Exception as error:  # Whichever way it notices.
            print(f"{name}: {error!r}", file=sys.stderr)
        finally:
            await agent.stop()

    def short(self) -> dict[str, Any]:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        server_auth = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
        _ = issue(self.world.certs, self.world.certs / "short", names, not_after=SHORT, usage=server_auth)
        text = self.world.config.read_text()
        try:
            self.world.config.write_text(text.replace("certs/server.", "certs/short."))
            return self.start("short")
        finally:
            self.world.config.write_text(text)

    def doctor(self, addr: str) -> Any:
        words = [binary("mas"), "doctor", "--json", "--config", str(self.world.config), "--admin", addr]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=False).stdout)["findings"]

    async def do(self, words: list[str]) -> Any:
        match words:
            case ["disk", "full"]:
                # Refused where something was written meanwhile.
                return any(self.disk.fill() for _ in range(50))
            case ["disk", "free"]:
                return self.disk.free()
            case ["ended", name]:
                return await self.ended(name)
            case ["short"]:
                return await asyncio.to_thread(self.short)
            case ["doctor", *addr]:
                own = self.servers["first"].ready["admin_addr"]
                return await asyncio.to_thread(self.doctor, addr[0] if addr else own)
            case ["hang", "redis"]:
                os.kill(self.redis.pid, signal.SIGSTOP)
            case ["wake", "redis"]:
                os.kill(self.redis.pid, signal.SIGCONT)
            case ["say", sender, target, kind, data]:
                return await self.say(sender, target, kind, json.loads(data))
            case ["kill", name]:
                self.servers.pop(name).kill()
            case ["stop", name]:
                await asyncio.to_thread(self.servers.pop(name).stop)
            case ["hang", name]:
                os.kill(self.servers[name].pid, signal.SIGSTOP)
            case ["wake", name]:
                os.kill(self.servers[name].pid, signal.SIGCONT)
            case ["talk", count]:
                await self.talk(int(count))
            case ["redis", *rest]:
                return self.world.redis(*rest)
            case ["mas", *rest]:
                return await asyncio.to_thread(self.world.mas, *rest)
            case ["elsewhere"]:
                issue = ["--operator", "olga", "--operator", "rita"]
                self.world.mas("certs", "issue", "--dir", str(self.world.certs), *issue)
                self.world.configure(SMALL, gateway=GATEWAY, settings=SETTINGS.replace("127.0.0.1:0", "0.0.0.0:0"))
                try:
                    return await asyncio.to_thread(self.start, "elsewhere")
                finally:
                    self.world.configure(SMALL, gateway=GATEWAY, settings=SETTINGS)
            case ["rules"]:
                self.world.configure(SMALL.replace("flaky, absent]", "absent]", 1), gateway=GATEWAY, settings=SETTINGS)
            case [name] if name not in self.servers:
                return await asyncio.to_thread(self.start, name)
            case _:
                raise ValueError(f"not understood: {words}")
        return None


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with World(many(count) if count else SMALL, gateway=GATEWAY, settings=SETTINGS) as world:
        fleet = Fleet(world)
        first = await asyncio.to_thread(fleet.start, "first")
        said: dict[str, Any] = {}
        talking = None
        if count:
            names = ["hub", *(f"agent-{number:03}" for number in range(0, count - 1, 4))]
            world.issue(*names)
            await fleet.connect(*names)
            await fleet.crowd()
        else:
            world.issue("planner", "worker", "archive", "flaky")
            await fleet.connect("planner", "worker", "archive", "flaky")
            said = await fleet.everything()
            talking = asyncio.create_task(fleet.keep_talking())
        print(json.dumps({"config": str(world.config), "folder": str(world.path), "first": first, "said": said}), flush=True)
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                try:
                    answer = {"done": await fleet.do(json.loads(line))}
                except Exception as error:
                    answer = {"error": repr(error)}
                print(json.dumps(answer), flush=True)
        finally:
            if talking:
                talking.cancel()
            fleet.disk.close()
            for process in (fleet.redis, *fleet.servers.values()):
                os.kill(process.pid, signal.SIGCONT)
            await asyncio.gather(*(asyncio.wait_for(agent.stop(), 5) for agent in fleet.agents.values()), return_exceptions=True)


asyncio.run(main())
