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
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from world import PATIENCE_S, ROOT, Process, binary

# The address in the examples.
ADDRESS = "127.0.0.1:50051"
# Longest file of an example, in lines.
MAX_LINES = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short: the socket of the managed Redis is below it, and such a path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="masex", dir="/tmp") as folder:
        yield Path(folder)


def environment() -> dict[str, str]:
    """In which `mas` and a `python3` with the library are found."""
    programs = [str(Path(sys.executable).parent), str(Path(binary("mas")).parent)]
    return {**os.environ, "PATH": os.pathsep.join([*programs, os.environ["PATH"]])}


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


def prepare(name: str, to: Path) -> list[str]:
    """A copy of the example at a free port, its certificates made by its readme; the readme's last command."""
    example = ROOT / "examples" / name
    shutil.copytree(example, to, dirs_exist_ok=True)
    config = to / "mas.yaml"
    assert ADDRESS in config.read_text()
    # Two servers of these tests may run at once: the admin address is left out.
    text = config.read_text().replace(ADDRESS, f"127.0.0.1:{free_port()}") + "admin_listen_addr: null\n"
    config.write_text(text)
    block = re.search(r"```sh\n(.*?)```", (example / "README.md").read_text(), re.DOTALL)
    assert block is not None
    *before, last = block[1].splitlines()
    for line in before:
        subprocess.run(line, shell=True, cwd=to, env=environment(), check=True, timeout=PATIENCE_S, capture_output=True)
    return last.split()


@contextlib.contextmanager
def running(words: list[str], folder: Path) -> Iterator[Process]:
    """`mas run`, and its end in order: it has processes of its own."""
    with Process(words, env=environment(), folder=folder, log=folder / "log") as process:
        try:
            yield process
        finally:
            code = process.stop()
        assert code == 0


def ask(folder: Path, command: str) -> str:
    """What a command of the readme prints."""
    assert f"\n{command} " in (folder / "README.md").read_text()
    words = command.split()
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["mcp", "pydantic_ai", "three_agents"])
def test_files_are_short(name: str) -> None:
    lengths = {
        path.name: len(path.read_text().splitlines()) for path in (ROOT / "examples" / name).iterdir() if path.is_file()
    }
    assert {"mas.yaml", "README.md"} < set(lengths)
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_three_agents(folder: Path) -> None:
    words = prepare("three_agents", folder)
    for first in (1, 4):
        with running(words, folder) as run:
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
                assert "coordinator" in ask(folder, "mas agents") and "ACME costs 105" in ask(
                    folder, "mas state get notes"
                )
    log = (folder / "log").read_text()
    assert "ConnectionError" in log and "it is delivered again" in log, log


def test_three_agents_try_again_what_fails(folder: Path) -> None:
    with running(prepare("three_agents", folder), folder) as run:
        assert [run.line("quotes/i0").split(" | ")[1] for _ in range(3)] == [
            f"{symbol}: attempt 2 succeeds" for symbol in ("ACME", "EMCA", "MACE")
        ]


def test_two_agents_of_pydantic_ai_ask_each_other(folder: Path) -> None:
    with running(prepare("pydantic_ai", folder), folder) as run:
        said = {run.line(part) for part in ("reviewed for writer: ", "written: ")}
        assert all("It is for people who are new to this." in line for line in said)


async def test_an_mcp_client_is_an_agent(folder: Path) -> None:
    words = prepare("mcp", folder)
    text = (folder / "client.json").read_text().replace("/home/me/mas-server/examples/mcp", str(folder))
    [server] = json.loads(text)["mcpServers"].values()
    # `mas-agent` is where the library was installed for this run.
    program = [sys.executable, "-m", "mas_agent.mcp", *server["args"][1:]]
    started = StdioServerParameters(command=program[0], args=program[1:], env=environment())
    with running(words, folder):
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
