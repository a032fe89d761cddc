"""Runs one instance of a Python agent that was written for mas-framework 0.4.

`mas run` starts this for each instance of an agent with a `class_path`, in the interpreter that the
configuration names. The class is created as the old runner created it, with nothing changed in its
code. What the old client does not do by itself is done here: when the connection is lost, the same
object connects again under the same instance id.
"""

import asyncio
import importlib
import json
import logging
import os
import random
import signal
import sys

# What the old command set for its agents, too.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Waits before connecting again, in seconds: doubling, with jitter.
RECONNECT_FIRST_S = 0.05
RECONNECT_LAST_S = 2.0
# How long a new stream may take until the server welcomes it.
WELCOME_TIMEOUT_S = 10.0
# How long an agent may take to stop; the runner kills after 10 seconds.
STOP_TIMEOUT_S = 8.0
STOP_CHECK_S = 0.05
# Arguments that the runner itself gives to the constructor.
RESERVED = {"agent_id", "server_addr", "tls"}

log = logging.getLogger("mas.launcher")


class CannotStart(Exception):
    """The configuration and the installed packages do not fit together."""


def load(class_path):
    module_name, colon, class_name = class_path.partition(":")
    if not (module_name and colon and class_name):
        raise CannotStart(f"class_path {class_path!r}: expected module:Class")
    try:
        framework = importlib.import_module("mas")
        agent, tls = framework.Agent, framework.TlsClientConfig
    except (ImportError, AttributeError) as error:
        raise CannotStart(
            f"mas-framework cannot be used in {sys.executable}: {error}; "
            "agents[].python or MAS_PYTHON names the interpreter that has it"
        ) from error
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise CannotStart(
            f"class_path {class_path!r}: no module {error.name!r} in {sys.path[0]} or in {sys.executable}"
        ) from error
    except AttributeError as error:
        raise CannotStart(f"class_path {class_path!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, agent)):
        raise CannotStart(f"class_path {class_path!r} is not a mas.Agent subclass")
    return found, tls


def create(class_path):
    cls, tls = load(class_path)
    arguments = json.loads(os.environ.pop("MAS_INIT_KWARGS", "{}"))
    reserved = sorted(RESERVED & arguments.keys())
    if reserved:
        raise CannotStart("init_kwargs contains reserved keys: " + ", ".join(reserved))
    agent = cls(
        os.environ["MAS_AGENT_ID"],
        server_addr=server_addr(),
        tls=tls(
            root_ca_path=os.environ["MAS_TLS_CA"],
            client_cert_path=os.environ["MAS_TLS_CERT"],
            client_key_path=os.environ["MAS_TLS_KEY"],
        ),
        **arguments,
    )
    # The same after a restart, so that what a lost session held comes back at once.
    agent.instance_id = os.environ["MAS_INSTANCE_ID"]
    return agent


def server_addr():
    addr = os.environ["MAS_SERVER_ADDR"]
    host = os.environ.get("MAS_SERVER_HOST")
    return f"{host}:{addr.rpartition(':')[2]}" if host else addr


class Run:
    """One agent from its start to its stop."""

    def __init__(self, agent):
        self.agent = agent
        self.stopping = asyncio.Event()

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopping.set)
        starting = asyncio.create_task(self.agent.start())
        stop = asyncio.create_task(self.stopping.wait())
        try:
            return await self.watch(starting, stop)
        finally:
            stop.cancel()
            if not starting.done():
                starting.cancel()
            await asyncio.gather(starting, stop, return_exceptions=True)
            await self.stop()

    async def watch(self, starting, stop):
        # `start` makes the transport task before it waits for anything.
        await asyncio.sleep(0)
        pause = RECONNECT_FIRST_S
        while True:
            transport = self.agent._transport_task
            running = {task for task in (starting, transport) if task is not None and not task.done()}
            if stop.done():
                return 0
            if starting.done() and starting.exception() is not None:
                log.error("%s did not start", self.agent.id, exc_info=starting.exception())
                return 1
            if starting.done() and not self.agent._running:
                await self.stopped_itself()
                return 0
            if transport is not None and transport.done():
                if not self.agent._transport_ready.is_set():
                    log.error("%s could not connect to %s", self.agent.id, self.agent.server_addr)
                    return 1
                if await self.reconnect(pause, stop):
                    pause = RECONNECT_FIRST_S
                else:
                    pause = min(pause * 2, RECONNECT_LAST_S)
                continue
            await asyncio.wait(running | {stop}, return_when=asyncio.FIRST_COMPLETED)

    async def reconnect(self, pause, stop):
        """True when the server has welcomed the new stream."""
        log.warning("%s lost its connection; connecting again", self.agent.id)
        await asyncio.wait({stop}, timeout=pause * random.uniform(0.5, 1.0))
        if stop.done():
            return True
        # Acknowledgements of the old session must not precede the new session's Hello; what they
        # were for is delivered again.
        self.agent._outgoing = asyncio.Queue(maxsize=self.agent._outgoing.maxsize)
        welcomed = self.agent._transport_ready = asyncio.Event()
        transport = asyncio.create_task(self.agent._transport_loop())
        self.agent._transport_task = transport
        ready = asyncio.create_task(welcomed.wait())
        await asyncio.wait(
            {ready, transport, stop}, timeout=WELCOME_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        ready.cancel()
        connected = welcomed.is_set()
        # Not a start any more: a failure leads to the next attempt.
        welcomed.set()
        if not connected:
            transport.cancel()
            await asyncio.gather(transport, return_exceptions=True)
        return connected

    async def stopped_itself(self):
        """Lets the agent's own `stop` come to its end; the last thing it does is to drop its channel."""
        for _ in range(int(STOP_TIMEOUT_S / STOP_CHECK_S)):
            if self.agent._channel is None:
                return
            await asyncio.sleep(STOP_CHECK_S)

    async def stop(self):
        if not self.agent._running:
            return
        try:
            await asyncio.wait_for(self.agent.stop(), STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            log.error("%s did not stop within %s s", self.agent.id, STOP_TIMEOUT_S)


def main():
    # Classes are found beside the configuration file first.
    sys.path.insert(0, os.environ["MAS_CONFIG_DIR"])
    try:
        agent = create(sys.argv[1])
    except CannotStart as error:
        print(f"mas run: {os.environ['MAS_AGENT_ID']}: {error}", file=sys.stderr)
        return 2
    return asyncio.run(Run(agent).run())


sys.exit(main())
