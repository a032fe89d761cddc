"""The tutorials, from top to bottom: their commands are run, their listings written, their outputs compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mas_agent
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from test_examples import free_port
from world import PATIENCE_S, ROOT, Process, binary, wait_until

DOCS = ROOT / "docs"
PYTHON = DOCS / "tutorial-python.md"
TYPESCRIPT = DOCS / "tutorial-typescript.md"
# What the text says and this machine has not.
ADDRESS = "127.0.0.1:50051"
HOME = "~/mas-server"
FOLDER = "/home/me/fleet"
# What is left running; everything else is waited for.
STAYS = "mas run"
CTRL_C = "**Ctrl-C**"
# Behind a command that is meant to fail.
FAILS = "# fails"
# Longest that one block may take; making the virtual environment takes longest.
BLOCK_S = 60.0


@dataclass
class Step:
    """A block of the text, or the words that stop what runs."""

    kind: str
    text: str
    where: str

    def __str__(self) -> str:
        return self.where


def steps(tutorial: Path) -> Iterator[Step]:
    """The blocks of a tutorial, in order."""
    lines = enumerate(tutorial.read_text().splitlines(), 1)
    for number, line in lines:
        if line == CTRL_C:
            yield Step("stop", "", f"{tutorial.name}:{number}")
        elif line.startswith("```"):
            content = []
            for _, inside in lines:
                if inside == "```":
                    break
                content.append(inside)
            yield Step(line[3:], "\n".join(content), f"{tutorial.name}:{number}")


def assert_shown(expected: str, printed: str, where: object) -> None:
    """Each line of the block, in this order; `…` is anything, and other lines may stand between."""
    rest = printed.splitlines()
    for line in expected.splitlines():
        pattern = ".*".join(map(re.escape, line.split("…")))
        found = next((index for index, one in enumerate(rest) if re.search(pattern, one)), None)
        assert found is not None, f"{where}: {line!r} is not in\n{printed}"
        rest = rest[found + 1 :]


@dataclass
class Terminals:
    """A shell in which one command runs after the other, and what is left running beside it."""

    folder: Path
    environment: dict[str, str]
    port: int
    home: Path = ROOT
    printed: str = ""
    running: list[Process] = field(default_factory=list)

    def rewritten(self, text: str) -> str:
        return (
            text.replace(ADDRESS, f"127.0.0.1:{self.port}")
            .replace(HOME, str(self.home))
            .replace(FOLDER, str(self.folder))
        )

    def run(self, step: Step) -> None:
        """Runs the lines one by one, in the folder and environment that those before have left."""
        self.printed = ""
        for line in step.text.splitlines():
            if line == STAYS:
                self._start()
                continue
            fails = FAILS in line
            script = f"{self.rewritten(line)}\ncode=$?\npwd >$TUTORIAL_LEFT\nenv -0 >>$TUTORIAL_LEFT\nexit $code"
            left = Path(self.environment["TUTORIAL_LEFT"])
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=BLOCK_S,
                check=False,
            )
            assert (done.returncode != 0) == fails, f"{step}: {line}: {done.returncode}\n{done.stdout}{self.log()}"
            self.printed += done.stdout
            where, _, values = left.read_text().partition("\n")
            self.folder = Path(where)
            self.environment = dict(one.split("=", 1) for one in values.split("\0") if one)

    def _start(self) -> None:
        process = Process(
            STAYS.split(), env=self.environment, folder=self.folder, log=self.folder / "first-terminal.log"
        )
        self.running.append(process)
        wait_until(
            lambda: "assistant" in self.ask("agents") and "ACTIVE" in self.ask("agents"), "the agent is connected"
        )

    def ask(self, command: str) -> str:
        done = subprocess.run(
            ["mas", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    def log(self) -> str:
        path = self.folder / "first-terminal.log"
        return path.read_text() if path.exists() else ""

    def write(self, step: Step) -> None:
        first, _, text = step.text.partition("\n")
        names = re.fullmatch(r"(?:#|//) file: (\S+)", first)
        assert names is not None, f"{step}: a listing without a file"
        text = self.rewritten(text)
        if step.kind == "yaml":
            # Other servers may run at the same time.
            text += "\nadmin_listen_addr: null\n"
        (self.folder / names[1]).write_text(text + "\n")

    def stop(self, step: Step) -> None:
        """As the keys do it."""
        process = self.running.pop()
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(PATIENCE_S) == 0, f"{step}\n{self.log()}"
        process.stop()

    def close(self) -> None:
        for process in self.running:
            process.stop()


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    # Short: the socket of the managed Redis is below it, and such a path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="mastu", dir="/tmp") as made:
        folder = Path(made)
        # What the tests' interpreter has need not be fetched; of the library the tutorial installs its own.
        packages = [sysconfig.get_paths()["purelib"]]
        environment = {
            **os.environ,
            "HOME": made,
            # What npm has fetched before.
            "npm_config_cache": os.environ.get("npm_config_cache") or str(Path.home() / ".npm"),
            "PATH": os.pathsep.join(
                [str(Path(binary("mas")).parent), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "PYTHONPATH": os.pathsep.join(packages),
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "TUTORIAL_LEFT": str(folder / "left"),
        }
        terminals = Terminals(folder, environment, free_port())
        try:
            yield terminals
        finally:
            terminals.close()


async def test_the_tutorial_for_python(terminals: Terminals) -> None:
    assert await follow(terminals, PYTHON) == {"sh", "text", "python", "yaml", "json", "stop"}


async def test_the_tutorial_for_typescript(terminals: Terminals) -> None:
    if why := no_npm():
        pytest.skip(f"NOT RUN: {why}")
    # Building the library leaves files in its folder.
    terminals.home = terminals.folder / "mas-server"
    ignored = shutil.ignore_patterns("node_modules", "dist", "build", "*.tgz")
    shutil.copytree(ROOT / "sdk" / "typescript", terminals.home / "sdk" / "typescript", ignore=ignored)
    assert await follow(terminals, TYPESCRIPT) == {"sh", "text", "js", "yaml", "stop"}


def no_npm() -> str | None:
    """Why packages of npm cannot be had, where they cannot."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no node, or no npm"
    words = ["npm", "view", "zod", "version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=BLOCK_S, check=False)
    return None if done.returncode == 0 else f"the registry of npm does not answer: {done.stderr[-200:]}"


async def follow(terminals: Terminals, tutorial: Path) -> set[str]:
    """Does what the tutorial says; the kinds of its steps."""
    kinds = set()
    for step in steps(tutorial):
        kinds.add(step.kind)
        if step.kind == "sh":
            terminals.run(step)
        elif step.kind == "text":
            assert_shown(step.text, terminals.printed, step)
        elif step.kind in ("python", "js", "yaml"):
            terminals.write(step)
        elif step.kind == "stop":
            terminals.stop(step)
        else:
            assert step.kind == "json", f"{step}: what is {step.kind!r}?"
            await join(terminals, step)
    assert not terminals.running
    return kinds


async def join(terminals: Terminals, step: Step) -> None:
    """What an MCP client does with its configuration."""
    [server] = json.loads(terminals.rewritten(step.text))["mcpServers"].values()
    started = StdioServerParameters(command=server["command"], args=server["args"], env=terminals.environment)
    async with Client(stdio_client(started)) as client:
        found = await client.call_tool("discover_peers", {})
        assert found.structured_content is not None and not found.is_error, found
        assert [one["agent_id"] for one in found.structured_content["peers"]] == ["assistant"]


def test_every_number_of_the_text_is_that_of_the_library() -> None:
    assert "eight seconds" in PYTHON.read_text() and mas_agent.Agent("x:1")._drain_timeout == 8
