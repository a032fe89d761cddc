"""The life of a connection."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mas_agent import Agent, Credentials, Message, NotConnected, Refused, SetupError, Unauthenticated
from mas_agent.testing import FakeServer
from places import STRANGER, Place, Real, agent_of, behaviour, both, configuration, real, soon, until

from world import UNLIMITED, World

DELIVERY = "delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [20, 40], max_attempts: 4}\n"


@pytest.fixture
def world() -> Iterator[World]:
    """A server of one's own, to be killed and configured."""
    with World(configuration(["alpha", "beta"]), gateway=UNLIMITED, settings=DELIVERY) as world:
        world.issue("alpha", "beta")
        yield world


@behaviour("connect.start")
@both
async def test_starting_returns_with_an_open_session_or_fails_with_the_reason(place: Place) -> None:
    async with place.agent(name := place.name(), instance_id="i7") as alpha:
        assert (alpha.agent_id, alpha.instance_id, alpha.is_connected, alpha.closed) == (name, "i7", True, False)
        with pytest.raises(SetupError, match="started already"):
            await alpha.start()
    assert alpha.closed
    began = time.monotonic()
    with pytest.raises(Unauthenticated) as refused:
        await place.stranger().start()
    assert refused.value.detail == "agent_not_allowlisted" and time.monotonic() - began < 5


@behaviour("connect.start")
@real
async def test_starting_without_a_server_says_what_kept_it(place: Real) -> None:
    nobody = Agent("127.0.0.1:1", credentials=Credentials(*place.world.files(STRANGER)), connect_timeout=0.5)
    with pytest.raises(NotConnected, match=r"127\.0\.0\.1:1 within 0.5 s: .*refused"):
        await nobody.start()
    assert nobody.closed


@behaviour("connect.setup")
@real
async def test_what_is_wrong_with_the_setup_is_said_at_once_and_all_of_it(
    place: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAS_SERVER_ADDR", "MAS_TLS_CA", "MAS_TLS_CERT", "MAS_TLS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupError, match="MAS_SERVER_ADDR, MAS_TLS_CA, MAS_TLS_CERT and MAS_TLS_KEY are not set"):
        await Agent().start()
    monkeypatch.setenv("MAS_SERVER_ADDR", place.server.addr)
    with pytest.raises(SetupError, match="^MAS_TLS_CA, MAS_TLS_CERT and MAS_TLS_KEY are not set"):
        await Agent().start()
    with pytest.raises(SetupError, match="instance id"):
        Agent(instance_id="a b")
    for name in ("connect_timeout", "call_timeout", "drain_timeout", "refused_retry", "concurrency"):
        for value in (-1, float("nan"), float("inf")):
            with pytest.raises(SetupError, match=f"^{name} {value}: expected"):
                Agent(**{name: value})
    ca, cert, key = place.world.files(STRANGER)
    _, other_cert, other_key = place.world.files("n0")
    missing, empty = tmp_path / "none.pem", tmp_path / "empty.pem"
    empty.write_text("nothing")
    for credentials, said in [
        (Credentials(ca, cert, other_key), f"{other_key}: is not the key of {cert}"),
        (Credentials(ca, other_cert, key), f"{key}: is not the key of {other_cert}"),
        (Credentials(missing, cert, empty), f"{missing}: No such file or directory; {empty}: no private key in PEM"),
        (Credentials(empty, empty, key), f"{empty}: no certificate in PEM; {empty}: no certificate in PEM"),
    ]:
        with pytest.raises(SetupError) as wrong:
            await Agent(place.server.addr, credentials=credentials).start()
        assert str(wrong.value) == said


@behaviour("connect.again")
async def test_a_lost_connection_is_made_again_and_what_waits_waits(world: World) -> None:
    server = await asyncio.to_thread(world.server)
    alpha, beta = agent_of(world, server, "alpha"), agent_of(world, server, "beta")
    arrived: asyncio.Queue[Message] = asyncio.Queue()

    @beta.on_raw("work")
    async def take(message: Message) -> None:
        arrived.put_nowait(message)

    async with alpha, beta:
        await asyncio.to_thread(server.kill)
        await until(lambda: not (alpha.is_connected or beta.is_connected), "the loss is seen")
        sending = asyncio.create_task(alpha.send("beta", "work", {"n": 1}))
        await until(lambda: alpha.backlog == 1, "it waits")
        await asyncio.to_thread(world.server, server.addr)
        assert (await soon(sending)).message_id and alpha.backlog == 0
        assert (await soon(arrived.get())).data == {"n": 1}


@behaviour("connect.events")
async def test_the_program_and_the_log_are_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    async with FakeServer() as server:
        alpha = server.agent("alpha", refused_retry=0.01)
        alpha.on_connected(lambda: told.append("connected"))

        @alpha.on_lost
        async def lost(reason: str) -> None:
            told.append(f"lost: {reason}")
            raise ValueError("a hook that fails")

        @alpha.on_refused
        def refused(refusal: Refused) -> None:
            told.append(f"refused: {refusal.detail}")

        async with alpha:
            server.disconnect("alpha")
            await until(lambda: told.count("connected") == 2, "it is back")
            server.shut_out("alpha", "certificate_revoked")
            await until(lambda: "refused: certificate_revoked" in told, "the refusal")
            server.let_in("alpha")
            await until(lambda: alpha.is_connected, "it is back")
    lost_once = "lost: the connection was lost (UNAVAILABLE)"
    assert told[:4] == ["connected", lost_once, "connected", "lost: certificate_revoked (UNAUTHENTICATED)"]
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings[0] == "the connection was lost: the connection was lost (UNAVAILABLE)"
    assert "connected again to the server in memory" in warnings[1]
    assert any("the hook 'lost' failed" in one.getMessage() for one in caplog.records)


@behaviour("connect.refused")
async def test_a_refused_agent_is_back_when_an_operator_has_changed_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.to_thread(world.server)
    refusals: asyncio.Queue[Refused] = asyncio.Queue()
    async with agent_of(world, server, "alpha", refused_retry=0.1) as alpha:
        alpha.on_refused(refusals.put_nowait)
        world.configure(configuration(["beta"]), settings=DELIVERY)
        server.process.popen.send_signal(signal.SIGHUP)
        assert (await soon(refusals.get())).detail == "agent_not_allowlisted"
        with pytest.raises(NotConnected, match="agent_not_allowlisted"):
            await alpha.get_state(timeout=0.05)
        world.configure(configuration(["alpha", "beta"]), settings=DELIVERY)
        server.process.popen.send_signal(signal.SIGHUP)
        await until(lambda: alpha.is_connected, "it is back")
        assert (await alpha.get_state()).fields == {}
    assert any(one.levelno == logging.ERROR and "refuses this agent" in one.getMessage() for one in caplog.records)


@behaviour("connect.wait")
async def test_wait_returns_after_a_stop_and_raises_the_refusal_that_ended_it() -> None:
    async with FakeServer() as server:
        alpha = server.agent("alpha")
        with pytest.raises(SetupError):
            await alpha.wait()
        async with alpha:
            waiting = asyncio.create_task(alpha.wait())
        await soon(waiting)
        beta = server.agent("beta", refused_is_final=True)
        await beta.start()
        server.shut_out("beta", "quarantined")
        with pytest.raises(Refused, match="quarantined"):
            await soon(beta.wait())
        assert beta.closed
        with pytest.raises(NotConnected, match="stopped"):
            await beta.get_state()


@behaviour("connect.renewed")
async def test_renewed_files_are_taken_up_by_the_next_connection(world: World, tmp_path: Path) -> None:
    server = await asyncio.to_thread(world.server)
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"

    def renew(name: str) -> None:
        for source, target in zip(world.files(name), (ca, cert, key)):
            shutil.copy(source, target)

    renew("alpha")
    lost = asyncio.Event()
    # Which certificate it is can be seen by its name.
    async with Agent(server.addr, credentials=Credentials(ca, cert, key)) as agent:
        agent.on_lost(lambda reason: lost.set())
        assert agent.agent_id == "alpha"
        cert.write_text(cert.read_text()[:200])
        await asyncio.to_thread(server.kill)
        await soon(lost.wait())
        await asyncio.to_thread(world.server, server.addr)
        with pytest.raises(NotConnected, match="no certificate in PEM"):
            await agent.get_state(timeout=0.5)
        renew("beta")
        await until(lambda: agent.agent_id == "beta", "the renewed certificate")


@behaviour("connect.addresses")
async def test_the_next_address_is_tried_after_each_failure(world: World) -> None:
    first = await asyncio.to_thread(world.server)
    second = await asyncio.to_thread(world.server)
    ca, cert, key = world.files("alpha")
    agent = Agent(["127.0.0.1:1", first.addr, second.addr], credentials=Credentials(ca, cert, key))
    async with agent:
        assert agent._opened().link._dialer.address == first.addr
        await asyncio.to_thread(first.kill)
        await until(lambda: not agent.is_connected, "the loss is seen")
        await until(lambda: agent.is_connected, "the other server")
        assert agent._opened().link._dialer.address == second.addr
        assert (await agent.get_state()).fields == {}
    async with Agent(f"127.0.0.1:1, {second.addr}", credentials=Credentials(ca, cert, key)):
        pass


@behaviour("connect.proxy")
@real
async def test_no_proxy_leads_to_the_machine_itself_and_none_is_used_when_it_is_off(
    place: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    for name in ("https_proxy", "http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with listening:
        port = place.server.addr.rpartition(":")[2]
        for address in (place.server.addr, f"localhost:{port}", f"dns:///localhost:{port}"):
            async with Agent(address, credentials=Credentials(*place.world.files(place.name()))) as alpha:
                assert alpha.is_connected
        assert not asked
        # An address of documentation: there is nobody.
        for used in (False, True):
            options = {"credentials": Credentials(*place.world.files(STRANGER)), "connect_timeout": 0.5}
            with pytest.raises(NotConnected):
                await Agent("192.0.2.1:1", proxy=used, **options).start()
            assert bool(asked) == used
    assert asked[0].startswith(b"CONNECT 192.0.2.1:1")
