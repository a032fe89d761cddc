"""The tutorials and the README's tour, from top to bottom: commands are run, listings written, outputs compared."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mas_agent
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from test_examples import copy_typescript, free_port, no_npm
from terminal import DESKTOP, Terminal, login, pairs
from test_examples import copy_typescript, free_port, no_npm
from world import PATIENCE_S, ROOT, binary, wait_until

README = ROOT / "README.md"
PYTHON = ROOT / "docs" / "tutorial-python.md"
TYPESCRIPT = ROOT / "docs" / "tutorial-typescript.md"
# What the texts say and this machine has not.
ADDRESS = "127.0.0.1:50051"
ME = "/home/me"
# What is left running, up to a comment; everything else is waited for.
STAYS = ("mas run", "mas dev --dir .mas/dev")
# What builds programs of Rust, or needs one that this would build.
NEEDS_CARGO = ("cargo ", "loadgen ")
# Where a text goes on in another terminal, for its reader and for this file.
TERMINAL = re.compile(r"\*\*In the (first|second) terminal:\*\*")
CTRL_C = "**Ctrl-C**"


@dataclass
class Step:
    """A block of the text, the words that stop what runs, or a change of the terminal."""

    kind: str
    text: str
    where: str

    def __str__(self) -> str:
        return self.where


def steps(tutorial: Path) -> Iterator[Step]:
    """The blocks of a tutorial, in order."""
    lines = enumerate(tutorial.read_text().splitlines(), 1)
    for number, line in lines:
        where = f"{tutorial.name}:{number}"
        if named := TERMINAL.fullmatch(line):
            yield Step("terminal", named[1], where)
        elif line.startswith(CTRL_C):
            yield Step("stop", "", where)
        elif line.startswith("```"):
            content = []
            for _, inside in lines:
                if inside == "```":
                    break
                content.append(inside)
            yield Step(line[3:], "\n".join(content), where)


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
    """The two terminals of a tutorial. Each begins with nothing but what a login gives."""

    home: Path
    environment: dict[str, str]
    port: int
    opens_in: Path
    printed: str = ""
    opened: dict[str, Terminal] = field(default_factory=dict)
    now: str = "first"

    @property
    def terminal(self) -> Terminal:
        if self.now not in self.opened:
            left = self.home / f"left-{self.now}"
            self.opened[self.now] = Terminal(self.opens_in, dict(self.environment), left)
        return self.opened[self.now]

    @property
    def log_path(self) -> Path:
        return self.home / "first-terminal.log"

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def rewritten(self, text: str) -> str:
        return text.replace(ADDRESS, f"127.0.0.1:{self.port}").replace(ME, str(self.home))

    def run(self, step: Step) -> None:
        self.printed = ""
        for line in step.text.splitlines():
            if line.startswith(STAYS):
                self.log_path.unlink(missing_ok=True)
                self.terminal.start(line, self.log_path)
                if "assistant" in self.ask("agents"):
                    wait_until(lambda: "ACTIVE" in self.ask("agents"), "the agent is connected")
            elif not line.startswith(NEEDS_CARGO):
                try:
                    self.printed += self.terminal.run(self.rewritten(line), step)
                except AssertionError as error:
                    raise AssertionError(f"{error}\nThe first terminal:\n{self.log()}") from None

    def ask(self, command: str) -> str:
        """What `mas` says where the terminal is."""
        terminal = self.terminal
        words = ["env", "-i", *pairs(terminal.environment), "mas", command]
        return subprocess.run(words, cwd=terminal.folder, capture_output=True, text=True, check=False).stdout

    def write(self, step: Step) -> None:
        first, _, text = step.text.partition("\n")
        names = re.fullmatch(r"(?:#|//) file: (\S+)", first)
        assert names is not None, f"{step}: a listing without a file"
        text = self.rewritten(text)
        if step.kind == "yaml":
            # Other servers may run at the same time.
            text += "\nadmin_listen_addr: null\n"
        (self.terminal.folder / names[1]).write_text(text + "\n")

    def stop(self, step: Step) -> None:
        """As the keys do it."""
        process = self.terminal.running
        assert process is not None, f"{step}: nothing runs here"
        self.terminal.running = None
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(PATIENCE_S) == 0, f"{step}\n{self.log()}"
        process.stop()

    def close(self) -> None:
        for terminal in self.opened.values():
            if terminal.running is not None:
                terminal.running.stop()


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    # Short: the socket of the managed Redis is below it, and such a path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="mastu", dir="/tmp") as made:
        home = Path(made)
        # Where scripts/quickstart builds.
        release = home / ".cache" / "mas-server" / "target" / "release"
        release.parent.mkdir(parents=True)
        release.symlink_to(Path(binary("mas")).parent)
        environment = login(home)
        terminals = Terminals(home, environment, free_port(), opens_in=home)
        try:
            yield terminals
        finally:
            terminals.close()


async def test_the_tutorial_for_python(terminals: Terminals) -> None:
    (terminals.home / "mas-server").symlink_to(ROOT)
    assert await follow(terminals, steps(PYTHON)) == {"sh", "text", "python", "yaml", "json", "stop", "terminal"}


async def test_the_tutorial_for_typescript(terminals: Terminals) -> None:
    if why := no_npm():
        pytest.skip(f"NOT RUN: {why}")
    copy_typescript(terminals.home / "mas-server")
    assert await follow(terminals, steps(TYPESCRIPT)) == {"sh", "text", "js", "yaml", "stop", "terminal"}


async def test_the_tour_of_the_readme(terminals: Terminals) -> None:
    """After the demo, in one folder and in the order of the page; what cargo builds is left out."""
    checkout = terminals.home / "mas-server"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "env", checkout / "scripts")
    config = (ROOT / "mas.yaml").read_text()
    assert ADDRESS in config
    (checkout / "mas.yaml").write_text(terminals.rewritten(config) + "admin_listen_addr: null\n")
    dev_at(terminals, checkout / ".mas" / "dev")
    [demo] = re.findall(r'^"\$programs/mas" (dev --demo .*)$', (ROOT / "scripts" / "quickstart").read_text(), re.MULTILINE)
    programs = terminals.home / ".cache" / "mas-server" / "target" / "release"
    terminals.opens_in = checkout
    terminals.terminal.run(f"{programs}/mas {demo}", "scripts/quickstart")

    lines = README.read_text().splitlines()
    first = lines.index("## A tour of five minutes")
    last = next(number for number, line in enumerate(lines) if line.startswith("## What it promises"))
    within = (step for step in steps(README) if first < int(str(step).split(":")[1]) < last)
    kinds = await follow(terminals, (step for step in within if step.kind not in ("rust", "yaml")))
    assert kinds == {"sh", "stop", "terminal"}
    assert "redis_rolled_back" not in terminals.log()


def dev_at(terminals: Terminals, folder: Path) -> None:
    """What `mas dev` makes in an empty folder, at an address of this test's own."""
    found = re.search(r'DEV_CONFIG: &str = "\\\n(.*?)";', (ROOT / "src" / "cli" / "run.rs").read_text(), re.DOTALL)
    assert found is not None and ADDRESS in found[1]
    folder.mkdir(parents=True)
    (folder / "mas.yaml").write_text(terminals.rewritten(found[1]) + "admin_listen_addr: null\n")
    for words in ("init --dir certs", "issue --dir certs alpha beta"):
        subprocess.run([binary("mas"), "certs", *words.split()], cwd=folder, check=True, capture_output=True)


async def follow(terminals: Terminals, tutorial: Iterator[Step]) -> set[str]:
    """Does what the tutorial says; the kinds of its steps."""
    kinds = set()
    for step in tutorial:
        kinds.add(step.kind)
        if step.kind == "terminal":
            terminals.now = step.text
        elif step.kind == "sh":
            await asyncio.to_thread(terminals.run, step)
        elif step.kind == "text":
            assert_shown(step.text, terminals.printed, step)
        elif step.kind in ("python", "js", "yaml"):
            terminals.write(step)
        elif step.kind == "stop":
            terminals.stop(step)
        else:
            assert step.kind == "json", f"{step}: what is {step.kind!r}?"
            await join(terminals, step)
    assert all(terminal.running is None for terminal in terminals.opened.values())
    return kinds


async def join(terminals: Terminals, step: Step) -> None:
    """What an MCP client does with its configuration: a program of the desktop, which knows no terminal."""
    [server] = json.loads(terminals.rewritten(step.text))["mcpServers"].values()
    environment = {**terminals.environment, "PATH": DESKTOP}
    started = StdioServerParameters(command=server["command"], args=server["args"], env=environment, cwd="/")
    async with Client(stdio_client(started)) as client:
        found = await client.call_tool("discover_peers", {})
        assert found.structured_content is not None and not found.is_error, found
        assert [one["agent_id"] for one in found.structured_content["peers"]] == ["assistant"]


def test_every_number_of_the_text_is_that_of_the_library() -> None:
    assert "eight seconds" in PYTHON.read_text() and mas_agent.Agent("x:1")._drain_timeout == 8
