"""`mas run` and `mas migrate` on a project of the Python server, as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from stubs import SERVICES, Client

from world import HERE, Process, World, wait_until


@pytest.fixture
def project() -> Iterator[World]:
    """The project in a world's folder; its configuration takes the place of the world's."""
    with World("agents: []\n") as world:
        shutil.copytree(HERE / "old_project", world.path, dirs_exist_ok=True)
        world.issue("planner", "worker")
        edit(world, "REDIS", world.redis_url)
        edit(world, "PORT", str(free_port()))
        yield world


def edit(world: World, old: str, new: str) -> None:
    text = world.config.read_text()
    assert old in text
    world.config.write_text(text.replace(old, new))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(world: World, python: Path, **env: str) -> Process:
    return world.run({"MAS_PYTHON": str(python), "RUST_LOG": "info", **env}, HERE)


def test_two_agents_complete_their_conversation(project: World, old_python: Path) -> None:
    running = run(project, old_python)
    expected = f"planner/i0 | done: 20 rounds, sum {sum(n * n for n in range(20))}"
    # Two workers start and the planner is done; one that is still starting would not say that it stops.
    lines = [running.line("/i") for _ in range(3)]
    assert sorted(lines) == [expected, "worker/i0 | worker starts", "worker/i1 | worker starts"]
    assert running.stop() == 0
    stops = [running.line("stops") for _ in range(3)]
    assert sorted(stops) == ["planner/i0 | planner stops", "worker/i0 | worker stops", "worker/i1 | worker stops"]
    # Each instance was a process with an id of its own, and everything is on record.
    log = project.log("agents.log")
    assert {"worker/i0", "worker/i1", "planner/i0"} <= set(re.findall(r"(\w+/i\d) started", log)), log
    project.mas("audit", "verify", "--config", str(project.config))


def test_agents_outlive_a_killed_server(project: World, old_python: Path) -> None:
    """The old client does not connect again by itself; the launcher does that, with the same object."""
    running = run(project, old_python)
    # Two workers and the planner; one that is still starting would be started anew.
    starts = [running.line("i") for _ in range(3)]
    assert sorted(line.partition(" | ")[2].split(":")[0] for line in starts) == ["done", "worker starts", "worker starts"]
    log = lambda: project.log("agents.log")  # noqa: E731
    agents = set(re.findall(r"/i\d started, pid (\d+)", log()))
    [server] = re.findall(r"mas-server started, pid (\d+)", log())
    os.kill(int(server), signal.SIGKILL)
    wait_until(lambda: len(re.findall(r"mas-server ready", log())) == 2, "the server is back")
    addr = re.findall(r"ready on (\S+)", log())[-1]
    with Client.of(project, addr, SERVICES[1], "worker", "test") as worker:
        worker.open()
        worker.send("planner", '{"n": 1}', "note")
        assert running.line("note") == "planner/i0 | note 1"
    # The same processes: nothing was started anew.
    assert set(re.findall(r"/i\d started, pid (\d+)", log())) == agents
    assert running.stop() == 0


def test_an_agent_that_dies_is_started_again(project: World, old_python: Path) -> None:
    running = run(project, old_python)
    running.line("done: 20 rounds")
    [pid] = re.findall(r"planner/i0 started, pid (\d+)", project.log("agents.log"))
    os.kill(int(pid), signal.SIGKILL)
    # Its state is where it was.
    assert running.line("done: ").startswith("planner/i0 | done: 40 rounds")
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("agents.planner:", "agents.nobody:", "no module 'agents.nobody'"),
        ("planner:PlannerAgent", "planner:Nobody", "Nobody"),
        ("planner:PlannerAgent", "models:Task", "is not a mas.Agent subclass"),
        ("      rounds: 20", "      rounds_: 20", "rounds"),
    ],
)
def test_an_agent_that_cannot_be_made_is_named(
    project: World, old_python: Path, old: str, new: str, message: str
) -> None:
    edit(project, old, new)
    running = run(project, old_python)
    wait_until(lambda: message in project.log("agents.log"), message)
    assert "planner/i0" in project.log("agents.log")
    assert running.stop() == 0


def test_an_interpreter_without_the_framework_is_named(project: World) -> None:
    running = run(project, Path("/usr/bin/env"), MAS_PYTHON="python3-that-is-not-there")
    assert running.popen.wait(30) == 2
    assert "python3-that-is-not-there" in project.log("agents.log")


def test_migrate_tells_each_key(project: World) -> None:
    told = json.loads(project.mas("migrate", "--check", str(project.config), "--json"))
    assert told["runs"] is True
    keys = {row["key"]: row for row in told["keys"]}
    lines = project.config.read_text().split("\n")
    for key, result in [
        ("server_listen_addr", "same"),
        ("gateway.redis.decode_responses", "no_effect"),
        ("gateway.rate_limit.per_minute", "same"),
        ("gateway.dlp.disable_defaults", "differs"),
        ("gateway.dlp.rules", "differs"),
        ("agents[].class_path (2 of 2)", "differs"),
        ("agents[].init_kwargs (1 of 2)", "same"),
    ]:
        assert keys[key]["result"] == result
        name = re.sub(r" .*", "", key.split(".")[-1])
        assert name in lines[keys[key]["line"] - 1]
    # Every key of the file is told: sections and entries by theirs.
    for section in ("redis", "rate_limit", "features", "dlp", "audit", "circuit_breaker", "telemetry"):
        assert any(key.startswith(f"gateway.{section}.") for key in keys), section
    text = project.mas("migrate", "--check", str(project.config))
    assert "starts with this file as it is" in text


def test_migrate_refuses_what_run_refuses(project: World) -> None:
    edit(project, "phone: block", "phone: encrypt")
    told = json.loads(project.mas("migrate", "--check", str(project.config), "--json", expected=2))
    [refused] = [row for row in told["keys"] if row["result"] == "refused"]
    assert "encrypt" in refused["note"] and refused["line"]
    edit(project, "phone: encrypt", "phone: block")
    edit(project, "agents: [planner, worker]", "agents: [planner, elsewhere]")
    told = json.loads(project.mas("migrate", "--check", str(project.config), "--json", expected=2))
    [refused] = [row for row in told["keys"] if row["result"] == "refused"]
    assert "elsewhere" in refused["note"] and refused["line"]
    (project.path / "certs/agents/worker.key").unlink()
    project.mas("migrate", "--check", str(project.config), "--json", expected=2)
    project.mas("migrate", "--check", str(project.path / "nowhere.yaml"), expected=2)


def test_from_the_old_server_to_this_one_over_the_same_redis(project: World, old_python: Path) -> None:
    """The five steps of docs/migrating.md in one: what the old server left is taken up."""
    words = [str(old_python), "-u", "-m", "mas", "run", "--config-file", str(project.config)]
    old = project.start(words, folder=project.path)
    assert old.line("done: ") == "done: 20 rounds, sum 2470"
    assert old.stop() == 0
    envelope = {
        "sender_id": "worker",
        "target_id": "planner",
        "message_type": "note",
        "data": {"n": 7},
        "meta": {
            "version": 1,
            "correlation_id": None,
            "expects_reply": False,
            "is_reply": False,
            "sender_instance_id": "abcd1234",
            "reply_to_instance_id": None,
            "traceparent": None,
            "tracestate": None,
        },
        "timestamp": 1760000000.5,
        "message_id": "1760000000500000000",
    }
    stream = "agent.stream:planner"
    project.redis("XADD", stream, "*", "envelope", json.dumps(envelope))
    project.redis("XREADGROUP", "GROUP", "agents", "planner-abcd1234", "COUNT", "1", "STREAMS", stream, ">")
    envelope["data"] = {"n": 8}
    envelope["message_id"] = "1760000000500000001"
    project.redis("XADD", stream, "*", "envelope", json.dumps(envelope))

    with project.config.open("a") as config:
        # The one held by a session of the old server need not wait as long as that takes by default.
        config.write("delivery: {reclaim_idle_ms: 300}\n")
    running = run(project, old_python)
    # The state goes on where it was, and both messages arrive: the one that waited and the one that was held.
    seen = {running.line("planner/i0 |") for _ in range(3)}
    assert seen == {
        "planner/i0 | done: 40 rounds, sum 4940",
        "planner/i0 | note 7",
        "planner/i0 | note 8",
    }
    assert running.stop() == 0
    project.mas("audit", "verify", "--config", str(project.config))

    # And back.
    project.config.write_text(project.config.read_text().replace("delivery: {reclaim_idle_ms: 300}\n", ""))
    with project.start(words, folder=project.path) as old:
        assert old.line("done: ") == "done: 60 rounds, sum 7410"
        assert old.stop() == 0

