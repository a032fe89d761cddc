"""What the tests run: Redis, certificates and servers of their own, ended by their process ids."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

# Longer than anything that is waited for takes; only a failing test waits that long.
PATIENCE_S = 30.0
# Between two looks at a condition that nothing announces.
LOOK_AGAIN_S = 0.01

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

UNLIMITED = "rate_limit: {per_minute: 1000000, per_hour: 10000000}"


def binary(name: str) -> str:
    """A program of this project, as built by cargo."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or cache / "mas-server" / "target")
    folder = Path(os.environ.get("MAS_BIN_DIR") or target / "release")
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: build it first (`cargo build --release`, or scripts/test)")
    return str(path)


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition returns once it is true."""
    give_up = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(LOOK_AGAIN_S)
    return value


class Process:
    """A process, the lines of its output, and its certain end."""

    def __init__(
        self,
        words: list[str],
        *,
        env: dict[str, str] | None = None,
        log: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self._log: IO[bytes] | None = log.open("ab") if log else None
        self.popen = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder,
            env={**os.environ, **(env or {})},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.decode(errors="replace").rstrip("\n"))
        self._lines.put(None)

    def line(self, part: str = "", patience: float = PATIENCE_S) -> str:
        """The next line that holds `part`."""
        give_up = time.monotonic() + patience
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, give_up - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.popen.args}: no line with {part!r} within {patience} s") from None
            if line is None:
                self._lines.put(None)
                raise AssertionError(f"{self.popen.args} ended ({self.popen.wait()}) without a line with {part!r}")
            if part in line:
                return line

    def json(self, event: str) -> dict[str, Any]:
        """The next JSON line of this event."""
        while True:
            line = self.line(f'"{event}"')
            if (value := json.loads(line)).get("event") == event:
                return value

    def say(self, line: str) -> None:
        """Writes a line to its input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        """kill -9, and its end."""
        if self.popen.poll() is None:
            self.popen.kill()
        self._end()

    def stop(self) -> int:
        """SIGTERM; its exit code. A process that does not end is killed and fails the test."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.popen.args} did not stop") from None
        return self._end()

    def _end(self) -> int:
        code = self.popen.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        for stream in (self.popen.stdin, self.popen.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class World:
    """A folder with an authority, a Redis on a unix socket, and the configuration of a server."""

    def __init__(self, agents: str, *, gateway: str = UNLIMITED, settings: str = "") -> None:
        # Short: a unix socket's path has 107 bytes at most.
        self._folder = tempfile.TemporaryDirectory(prefix="maspy", dir="/tmp")
        self.path = Path(self._folder.name)
        self.certs = self.path / "certs"
        self._processes: list[Process] = []
        self._runners: list[Process] = []
        self.mas("certs", "init", "--dir", str(self.certs))
        socket = self.path / "redis.sock"
        words = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(self.path)]
        self._redis_words = [*words, "--save", "", "--appendonly", "yes"]
        self.redis_url = f"unix://{socket}"
        self._socket = socket
        self.start_redis()
        self.config = self.path / "mas.yaml"
        self.configure(agents, gateway=gateway, settings=settings)

    def start_redis(self) -> Process:
        redis = self._start(self._redis_words, log="redis.log")
        wait_until(self._redis_answers, "redis-server answers")
        return redis

    def _redis_answers(self) -> bool:
        ping = subprocess.run(["redis-cli", "-s", str(self._socket), "ping"], capture_output=True, check=False)
        return ping.stdout.strip() == b"PONG"

    def redis(self, *words: str) -> str:
        """The answer to a Redis command."""
        return subprocess.run(
            ["redis-cli", "-s", str(self._socket), *words], capture_output=True, check=True, text=True
        ).stdout.strip()

    def configure(self, agents: str, *, gateway: str = UNLIMITED, settings: str = "") -> None:
        """Writes the configuration."""
        self.config.write_text(
            "server_listen_addr: 127.0.0.1:0\ntls_ca_path: certs/ca.pem\n"
            "tls_server_cert_path: certs/server.pem\ntls_server_key_path: certs/server.key\n"
            f"gateway: {{redis: {{url: '{self.redis_url}', socket_timeout: 2}}, {gateway}}}\n{settings}{agents}"
        )

    def issue(self, *agents: str) -> None:
        """Certificates of agents, in certs/agents."""
        self.mas("certs", "issue", "--dir", str(self.certs), *agents)

    def files(self, agent: str) -> tuple[Path, Path, Path]:
        """CA, certificate and key of an agent, issued when they are not there."""
        cert = self.certs / "agents" / f"{agent}.pem"
        if not cert.exists():
            self.issue(agent)
        return self.certs / "ca.pem", cert, cert.with_suffix(".key")

    def env(self, agent: str, addr: str, instance: str = "i0") -> dict[str, str]:
        """The variables that the runner gives to an agent's process."""
        ca, cert, key = self.files(agent)
        return {
            "MAS_AGENT_ID": agent,
            "MAS_INSTANCE_ID": instance,
            "MAS_SERVER_ADDR": addr,
            "MAS_TLS_CA": str(ca),
            "MAS_TLS_CERT": str(cert),
            "MAS_TLS_KEY": str(key),
        }

    def server(self, listen: str = "127.0.0.1:0") -> Server:
        words = [binary("mas-server"), "--config", str(self.config), "--threads", "2", "--listen", listen]
        return Server(self._start(words, log="server.log"))

    def start(
        self, words: list[str], env: dict[str, str] | None = None, folder: Path | None = None
    ) -> Process:
        """A process that ends with this world; what it says on stderr goes to agents.log."""
        return self._start(words, env=env, log="agents.log", folder=folder)

    def run(self, env: dict[str, str] | None = None, folder: Path | None = None) -> Process:
        """`mas run` on the configuration, in its folder or another one."""
        words = [binary("mas"), "run", "--config", str(self.config), "--threads", "2"]
        runner = self._start(words, env=env, log="agents.log", folder=folder or self.path)
        self._runners.append(runner)
        return runner

    def _start(
        self, words: list[str], *, log: str, env: dict[str, str] | None = None, folder: Path | None = None
    ) -> Process:
        process = Process(words, env=env, log=self.path / log, folder=folder)
        self._processes.append(process)
        return process

    def mas(self, *words: str, expected: int = 0) -> str:
        """The output of a `mas` command."""
        done = subprocess.run([binary("mas"), *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.returncode == expected, f"mas {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def log(self, name: str) -> str:
        path = self.path / name
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        # Agents first, Redis last. A runner has processes of its own, which it ends when it is asked.
        for process in reversed(self._processes):
            if process in self._runners and process.popen.poll() is None:
                process.stop()
            process.kill()
        self._folder.cleanup()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Server:
    """A server that accepts connections."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ready = process.json("mas.server.ready")
        self.addr: str = self.ready["listen_addr"]

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> int:
        return self.process.stop()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worlds(*args: Any, **kwargs: Any) -> Iterator[World]:
    """For fixtures: a world, and its end."""
    with World(*args, **kwargs) as world:
        yield world
