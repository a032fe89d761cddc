"""The examples, run as their readmes say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from terminal import DESKTOP, Terminal, login
from world import PATIENCE_S, ROOT, Process, binary, wait_until

# The address in the examples.
ADDRESS = "127.0.0.1:50051"
# What following a readme leaves in the folder of an example.
MADE = ("venv", "node_modules", "package-lock.json", "build", "certs", "keys", ".mas", "audit-*")
# Longest file of an example, in lines.
MAX_LINES = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short: the socket of the managed Redis is below it, and such a path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="masex", dir="/tmp") as folder:
        yield Path(folder)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def no_npm() -> str | None:
    """Why packages of npm cannot be had, where they cannot."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no node, or no npm"
    words = ["npm", "view", "zod", "version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return None if done.returncode == 0 else f"the registry of npm does not answer: {done.stderr[-200:]}"


def copy_typescript(to: Path) -> None:
    """A checkout with nothing but the library for TypeScript: building it leaves files in its folder."""
    ignored = shutil.ignore_patterns("node_modules", "dist", "build", "*.tgz")
    shutil.copytree(ROOT / "sdk" / "typescript", to / "sdk" / "typescript", ignore=ignored)


@dataclass
class Example:
    """An example that is ready to run, and the terminal in which its readme was followed."""

    terminal: Terminal
    last: str

    @property
    def folder(self) -> Path:
        return self.terminal.folder

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @contextlib.contextmanager
    def running(self) -> Iterator[Process]:
        """The last command, which stays, and its end in order: it has processes of its own."""
        process = self.terminal.start(self.last, self.log)
        try:
            yield process
        finally:
            self.terminal.running = None
            code = process.stop()
        assert code == 0

    def ask(self, command: str) -> str:
        """What a command of the readme prints, in another terminal."""
        assert f"\n{command}" in (self.folder / "README.md").read_text()
        other = Terminal(self.folder, self.terminal.environment, self.folder / "left")
        return other.run(command, command)


def prepare(name: str, home: Path) -> Example:
    """A copy of the example at a free port, made ready by its readme, all but the last command."""
    checkout = home / "mas-server"
    example = checkout / "examples" / name
    shutil.copytree(ROOT / "examples" / name, example, ignore=shutil.ignore_patterns(*MADE))
    if not (checkout / "sdk").exists():
        (checkout / "sdk").symlink_to(ROOT / "sdk")
    config = example / "mas.yaml"
    assert ADDRESS in config.read_text()
    # Two servers of these tests may run at once: the admin address is left out.
    text = config.read_text().replace(ADDRESS, f"127.0.0.1:{free_port()}") + "admin_listen_addr: null\n"
    config.write_text(text)
    block = re.search(r"```sh\n(.*?)```", (example / "README.md").read_text(), re.DOTALL)
    assert block is not None
    *before, last = block[1].splitlines()
    environment = login(home)
    # The readme's line before it: what `scripts/quickstart` prints.
    environment["PATH"] = os.pathsep.join([str(Path(binary("mas")).parent), environment["PATH"]])
    terminal = Terminal(example, environment, home / "left")
    for line in before:
        terminal.run(line, f"{name}/README.md")
    return Example(terminal, last)


@pytest.mark.parametrize("name", ["mcp", "pydantic_ai", "three_agents", "typescript"])
def test_files_are_short(name: str) -> None:
    lengths = {
        path.name: len(path.read_text().splitlines()) for path in (ROOT / "examples" / name).iterdir() if path.is_file()
    }
    assert {"mas.yaml", "README.md"} < set(lengths)
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_three_agents(folder: Path) -> None:
    example = prepare("three_agents", folder)
    for first in (1, 4):
        with example.running() as run:
            # It fails at every second call: each message is handled at its second attempt.
            lines = [run.line("coordinator") for _ in range(4)]
            notes = [f"(note {number})" for number in range(first, first + 3)]
            assert [line.split(" (")[0] for line in lines[:3]] == [
                f"coordinator/i0 | {symbol} costs {price}"
                for symbol, price in [("ACME", 105), ("EMCA", 109), ("MACE", 117)]
            ]
            assert [f"({line.split(' (')[1]}" for line in lines[:3]] == notes
            assert lines[3].endswith("all is asked")
            if first == 1:
                assert "coordinator" in example.ask("mas agents")
                assert "ACME costs 105" in example.ask("mas state get notes")
    log = example.log.read_text()
    assert "ConnectionError" in log and "it is delivered again" in log, log


def test_three_agents_try_again_what_fails(folder: Path) -> None:
    with prepare("three_agents", folder).running() as run:
        assert [run.line("quotes/i0").split(" | ")[1] for _ in range(3)] == [
            f"{symbol}: attempt 2 succeeds" for symbol in ("ACME", "EMCA", "MACE")
        ]


def test_two_agents_of_pydantic_ai_ask_each_other(folder: Path) -> None:
    with prepare("pydantic_ai", folder).running() as run:
        said = {run.line(part) for part in ("reviewed for writer: ", "written: ")}
        assert all("It is for people who are new to this." in line for line in said)


async def test_an_mcp_client_is_an_agent(folder: Path) -> None:
    example = prepare("mcp", folder)
    text = (example.folder / "client.json").read_text().replace("/home/me", str(folder))
    [server] = json.loads(text)["mcpServers"].values()
    # As a program of the desktop starts it.
    env = {**login(folder), "PATH": DESKTOP}
    started = StdioServerParameters(command=server["command"], args=server["args"], env=env, cwd="/")
    with example.running():
        async with Client(stdio_client(started)) as client:

            async def is_there() -> bool:
                listed = await client.list_tools(cache_mode="refresh")
                return "quotes__quote" in {one.name for one in listed.tools}

            while not await is_there():
                await asyncio.sleep(0.05)
            for _ in range(3):
                reply = await client.call_tool("quotes__quote", {"symbol": "ACME"})
                assert reply.structured_content is not None
                assert reply.structured_content["payload"] == {"symbol": "ACME", "price": 40}
            look = await client.call_tool("look_at_messages", {"wait_seconds": 10})
            assert look.structured_content is not None
            [note] = look.structured_content["messages"]
            assert note["payload"] == {"text": "You have asked three times."}


def test_a_model_whose_tools_are_agents(folder: Path) -> None:
    if why := no_npm():
        pytest.skip(f"NOT RUN: {why}")
    copy_typescript(folder / "mas-server")
    example = prepare("typescript", folder)
    found = re.search(r"\n(mas request .*)\n```\n\n```text\n(.*)\n```", (example.folder / "README.md").read_text())
    assert found is not None
    with example.running():
        wait_until(lambda: example.ask("mas agents").count(" ACTIVE") == 2, "both are connected")
        assert example.ask(found[1]).splitlines()[-1] == found[2]
