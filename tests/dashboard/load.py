"""A loaded fleet for load.mjs: two servers on one Redis, agents in pairs, messages at a steady rate. Says where it is in one JSON line
and ends when its input does.

    load.py AGENTS RATE SECONDS
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))

from certificates import issue, uri
from world import UNLIMITED, Server, World, binary

SETTINGS = "admin_listen_addr: 127.0.0.1:0\n"
GATEWAY = f"{UNLIMITED}, audit: {{archive_dir: archive}}"
# Senders and receivers at the first and at the second server.
NAMES = [("a", "b"), ("c", "d")]


def main() -> None:
    agents, rate, seconds = map(int, sys.argv[1:])
    # Everything that was started ends with this process, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    pairs = agents // 4
    rules, listed = ["permissions:"], ["agents:"]
    for sender, receiver in NAMES:
        for n in range(pairs):
            rules.append(f"  - {{type: allow, sender: {sender}{n}, targets: [{receiver}{n}]}}")
            listed += [f"  - {{agent_id: {sender}{n}}}", f"  - {{agent_id: {receiver}{n}}}"]
    with World("\n".join([*rules, *listed]) + "\n", gateway=GATEWAY, settings=SETTINGS) as world:
        (world.certs / "agents").mkdir(exist_ok=True)
        for name in (f"{kind}{n}" for both in NAMES for kind in both for n in range(pairs)):
            issue(world.certs, world.certs / "agents" / name, [uri(f"spiffe://mas/agent/{name}")])
        servers = [world.server() for _ in NAMES]
        loads = []
        for server, (sender, receiver) in zip(servers, NAMES):
            words = [binary("loadgen"), "--target", server.addr, "--certs", str(world.certs), "--path", "stream"]
            words += ["--agents", str(agents // 2), "--rate", str(rate // 2), "--seconds", str(seconds), "--warm-up", "5"]
            words += ["--sender-name", sender + "{}", "--receiver-name", receiver + "{}", "--json"]
            loads.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        try:
            follow(world, servers, loads)
        finally:
            for load in loads:
                load.terminate()
                print(load.communicate()[0], flush=True)


def follow(world: World, servers: list[Server], loads: list[subprocess.Popen[str]]) -> None:
    """Until the input ends, or a load does."""
    told = [{"admin": one.ready["admin_addr"], "pid": one.pid} for one in servers]
    print(json.dumps({"servers": told, "config": str(world.config)}), flush=True)
    sys.stdin.read()
    ended = [load.args for load in loads if load.poll() is not None]
    assert not ended, f"ended by itself: {ended}"


main()
