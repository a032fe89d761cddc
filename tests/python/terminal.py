"""A terminal as a reader of the documents has it: it begins with nothing but what a login gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from world import Process, wait_until

# Behind a command that is meant to fail.
FAILS = "# fails"
# Longest that one line may take; making a virtual environment takes longest.
LINE_S = 60.0
# What a program of the desktop finds.
DESKTOP = "/usr/local/bin:/usr/bin:/bin"


def login(home: Path) -> dict[str, str]:
    """The environment of a new terminal: the system's programs, none of this project or of the tests' environment."""
    path = [str(Path(sys.base_prefix) / "bin"), *os.environ["PATH"].split(os.pathsep)]
    path = [one for one in path if not any((Path(one) / name).exists() for name in ("mas", "mas-agent"))]
    path = [one for one in path if Path(one) != Path(sys.executable).parent]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("MAS_")},
        "HOME": str(home),
        "PATH": os.pathsep.join(path),
        # What npm has fetched before.
        "npm_config_cache": os.environ.get("npm_config_cache") or str(Path.home() / ".npm"),
        # What the tests' interpreter has need not be fetched; the library is installed as the text says.
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def pairs(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


@dataclass
class Terminal:
    """A shell in which one command runs after the other, until one of them stays."""

    folder: Path
    environment: dict[str, str]
    left: Path
    running: Process | None = None

    def run(self, line: str, where: object) -> str:
        """Runs a line in the folder and environment that those before have left; what it prints."""
        assert self.running is None, f"{where}: {line}: something else runs in this terminal"
        script = f"{line}\ncode=$?\npwd >{self.left}\nenv -0 >>{self.left}\nexit $code"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LINE_S,
            check=False,
        )
        assert (done.returncode != 0) == (FAILS in line), f"{where}: {line}: {done.returncode}\n{done.stdout}"
        folder, _, values = self.left.read_text().partition("\n")
        self.folder = Path(folder)
        self.environment = dict(one.split("=", 1) for one in values.split("\0") if one)
        return done.stdout

    def start(self, line: str, log: Path) -> Process:
        """Leaves a command running, when its server is ready."""
        words = line.split("#")[0].split()
        # Looked for as its terminal does; this process has another PATH.
        program = shutil.which(words[0], path=self.environment["PATH"])
        assert program is not None, f"{words[0]}: command not found"
        process = Process(["env", "-i", *pairs(self.environment), program, *words[1:]], folder=self.folder, log=log)
        self.running = process
        try:
            wait_until(lambda: "server_ready" in log.read_text(), f"{line} is ready")
        except AssertionError as error:
            process.kill()
            raise AssertionError(f"{error}\n{log.read_text()}") from None
        return process
