"""Every row of the contract's table of statuses, details included, through stubs that grpcio-tools generates,
on both service paths."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import certificates
from certificates import dns, uri
from stubs import SERVICES, Client, events, messages, stub
from world import PATIENCE_S, Server, World, wait_until

# Agents per service path, so that what one test counts or opens does not meet the other's.
AGENTS = """
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
  - {type: allow, sender: alpha, targets: [fragile0, fragile1, gamma]}
  - {type: allow, sender: minute0, targets: [beta]}
  - {type: allow, sender: minute1, targets: [beta]}
  - {type: allow, sender: hour0, targets: [beta]}
  - {type: allow, sender: hour1, targets: [beta]}
  - {type: deny, sender: alpha, targets: [gamma]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta, capabilities: [work], metadata: {level: 3}}
  - {agent_id: gamma}
  - {agent_id: fragile0}
  - {agent_id: fragile1}
  - {agent_id: minute0, rate_limit: {per_minute: 2, per_hour: 100}}
  - {agent_id: minute1, rate_limit: {per_minute: 2, per_hour: 100}}
  - {agent_id: hour0, rate_limit: {per_minute: 100, per_hour: 2}}
  - {agent_id: hour1, rate_limit: {per_minute: 100, per_hour: 2}}
"""
GATEWAY = (
    "rate_limit: {per_minute: 1000000, per_hour: 10000000}, "
    "circuit_breaker: {failure_threshold: 2, timeout_seconds: 60}"
)
# What one test leaves unacknowledged comes again in the next one's session, and must not become a failure there.
SETTINGS = "limits: {max_message_bytes: 100000}\ndelivery: {max_attempts: 1000}\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(AGENTS, gateway=GATEWAY, settings=SETTINGS) as world:
        yield world


@pytest.fixture(scope="module")
def server(world: World) -> Server:
    return world.server()


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def index(service: str) -> int:
    return SERVICES.index(service)


@pytest.fixture
def alpha(world: World, server: Server, service: str) -> Iterator[Client]:
    with Client.of(world, server.addr, service, "alpha") as client:
        client.open()
        yield client


@pytest.fixture
def beta(world: World, server: Server, service: str) -> Iterator[Client]:
    with Client.of(world, server.addr, service, "beta") as client:
        client.open()
        yield client


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """The status and the details that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def every_call(client: Client) -> list[Callable[[], Any]]:
    """One call of each method."""
    pb, t = client.pb, PATIENCE_S
    return [
        client.open,
        lambda: client.send("beta"),
        lambda: client.request("beta"),
        lambda: client.reply("0" * 32),
        lambda: client.stub.Discover(pb.DiscoverRequest(), timeout=t),
        lambda: client.stub.GetState(pb.GetStateRequest(), timeout=t),
        lambda: client.stub.UpdateState(pb.UpdateStateRequest(updates={"a": "1"}), timeout=t),
        lambda: client.stub.ResetState(pb.ResetStateRequest(), timeout=t),
    ]


# The handshake


def assert_no_handshake(channel: grpc.Channel, service: str) -> None:
    with channel, pytest.raises(grpc.RpcError) as caught:
        stub(service, channel).GetState(messages().GetStateRequest(), timeout=PATIENCE_S)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_no_certificate_no_connection(world: World, server: Server, service: str) -> None:
    credentials = grpc.ssl_channel_credentials((world.certs / "ca.pem").read_bytes())
    assert_no_handshake(grpc.secure_channel(server.addr, credentials), service)


def test_plaintext_no_connection(server: Server, service: str) -> None:
    assert_no_handshake(grpc.insecure_channel(server.addr), service)


@pytest.mark.parametrize("kind", ["another authority", "expired"])
def test_bad_certificates_no_connection(
    world: World, server: Server, service: str, kind: str, tmp_path: Path
) -> None:
    names = [uri("spiffe://mas/agent/alpha")]
    if kind == "expired":
        yesterday = datetime.timedelta(days=-1)
        cert, key = certificates.issue(world.certs, tmp_path / "leaf", names, not_after=yesterday)
    else:
        cert, key = certificates.issue_by_another_authority(tmp_path / "leaf", names)
    ca = (world.certs / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(ca, key.read_bytes(), cert.read_bytes())
    assert_no_handshake(grpc.secure_channel(server.addr, credentials), service)


# Identity


@pytest.mark.parametrize(
    ("names", "details"),
    [
        ([], "missing_spiffe_san"),
        ([dns("localhost")], "invalid_spiffe_san"),
        ([uri("https://mas/agent/alpha")], "invalid_spiffe_san"),
        ([uri("spiffe://mas/agent/alpha"), uri("spiffe://mas/agent/beta")], "invalid_spiffe_san"),
        ([uri("spiffe://other/agent/alpha")], "invalid_spiffe_format"),
        ([uri("spiffe://mas/operator/alpha")], "invalid_spiffe_format"),
        ([uri("spiffe://mas/agent/al:pha")], "invalid_spiffe_format"),
        ([uri("spiffe://mas/agent/" + "a" * 65)], "invalid_spiffe_format"),
        ([uri("spiffe://mas/agent/stranger")], "agent_not_allowlisted"),
    ],
)
def test_identities(
    world: World, server: Server, service: str, names: list[Any], details: str, tmp_path: Path
) -> None:
    cert, key = certificates.issue(world.certs, tmp_path / "leaf", names)
    with Client(service, server.addr, world.certs / "ca.pem", cert, key) as client:
        for call in every_call(client):
            assert refusal(call) == ("UNAUTHENTICATED", details)


def test_other_names_may_stand_beside_the_identity(
    world: World, server: Server, service: str, tmp_path: Path
) -> None:
    names = [dns("alpha.example.org"), uri("spiffe://mas/agent/alpha")]
    cert, key = certificates.issue(world.certs, tmp_path / "leaf", names)
    with Client(service, server.addr, world.certs / "ca.pem", cert, key, "named") as client:
        assert client.open().agent_id == "alpha"


# Sessions


def test_the_first_event_is_hello(world: World, server: Server, service: str) -> None:
    with Client.of(world, server.addr, service, "alpha") as client:
        pb = client.pb
        opening = lambda *items: lambda: next(client.stub.Transport(events(*items), timeout=PATIENCE_S))  # noqa: E731
        assert refusal(opening()) == ("INVALID_ARGUMENT", "missing_hello")
        heartbeat = pb.ClientEvent(heartbeat=pb.Heartbeat())
        assert refusal(opening(heartbeat)) == ("INVALID_ARGUMENT", "expected_hello")
        assert refusal(opening(pb.ClientEvent())) == ("INVALID_ARGUMENT", "expected_hello")


@pytest.mark.parametrize("instance", ["", "a b", "i0\n", "ä", "a:b", "*", "x" * 33])
def test_malformed_instances(world: World, server: Server, service: str, alpha: Client, instance: str) -> None:
    with Client.of(world, server.addr, service, "alpha", instance) as client:
        assert refusal(client.open) == ("INVALID_ARGUMENT", "invalid_instance_id")
    for call in (lambda: alpha.send("beta", instance=instance), lambda: alpha.reply("0" * 32, instance=instance)):
        assert refusal(call) == ("INVALID_ARGUMENT", "invalid_instance_id")


def test_an_instance_connects_once(world: World, server: Server, service: str, alpha: Client) -> None:
    with Client.of(world, server.addr, service, "alpha") as second:
        assert refusal(second.open) == ("FAILED_PRECONDITION", "instance_already_connected")
        # Its calls are those of the session, whatever channel they come on.
        assert second.send("beta").message_id
    assert alpha.send("beta").message_id


def test_messages_need_a_session(world: World, server: Server, service: str) -> None:
    with Client.of(world, server.addr, service, "alpha", "nowhere") as client:
        for call in every_call(client)[1:4]:
            assert refusal(call) == ("FAILED_PRECONDITION", "session_not_connected")
        # State and discovery do not.
        for call in every_call(client)[4:]:
            call()


def test_what_means_nothing_is_ignored(alpha: Client, beta: Client) -> None:
    pb = alpha.pb
    beta.say(hello=pb.Hello(instance_id="other"))
    beta.say(heartbeat=pb.Heartbeat())
    beta.say(ack=pb.Ack(delivery_id="1-1"))
    beta.say(ack=pb.Ack(delivery_id="nonsense"))
    beta.say(nack=pb.Nack(delivery_id="99999999999999-0", retryable=True))
    delivery = beta.receive(alpha.send("beta", '{"n":1}').message_id)
    beta.say(ack=pb.Ack(delivery_id=delivery.delivery_id))
    beta.receive(alpha.send("beta").message_id)


# Messages


@pytest.mark.parametrize(
    ("data", "details"),
    [
        ("{", "invalid_json"),
        ("nothing", "invalid_json"),
        ('{"a":NaN}', "invalid_json"),
        ('{"a":-Infinity}', "invalid_json"),
        ('{"a":1e999}', "invalid_json"),
        ('{"a":"\\ud800"}', "invalid_json"),
        ('{"a":' * 100 + "1" + "}" * 100, "invalid_json"),
        ("{} {}", "invalid_json"),
        ("[1]", "payload_must_be_object"),
        ('"text"', "payload_must_be_object"),
        ("null", "payload_must_be_object"),
    ],
)
def test_payloads(alpha: Client, data: str, details: str) -> None:
    assert refusal(lambda: alpha.send("beta", data)) == ("INVALID_ARGUMENT", details)
    assert refusal(lambda: alpha.request("beta", data)) == ("INVALID_ARGUMENT", details)


def test_an_envelope_has_what_the_contract_says(alpha: Client, beta: Client) -> None:
    asked = alpha.request("beta", "", 5000)
    envelope = json.loads(beta.receive(asked.message_id).envelope_json)
    assert set(envelope) == {"sender_id", "target_id", "message_type", "data", "meta", "timestamp", "message_id"}
    assert envelope["data"] == {} and envelope["message_id"] == asked.message_id
    assert (envelope["sender_id"], envelope["target_id"], envelope["message_type"]) == ("alpha", "beta", "ask")
    assert isinstance(envelope["timestamp"], float)
    assert envelope["meta"] == {
        "version": 1,
        "correlation_id": asked.correlation_id,
        "expects_reply": True,
        "is_reply": False,
        "sender_instance_id": "i0",
        "reply_to_instance_id": None,
        "traceparent": None,
        "tracestate": None,
    }
    assert len(asked.correlation_id) == 32 and int(asked.correlation_id, 16) >= 0
    replied = beta.reply(asked.correlation_id, '{"ok":true}')
    reply = json.loads(alpha.receive(replied.message_id).envelope_json)
    assert reply["meta"]["is_reply"] and reply["meta"]["reply_to_instance_id"] == "i0"
    assert reply["meta"]["correlation_id"] == asked.correlation_id and reply["data"] == {"ok": True}


@pytest.mark.parametrize("target", ["gamma", "nobody", "", "alpha:allowed_targets", "*", "beta\n", "x" * 65])
def test_whom_one_may_not_message(alpha: Client, target: str) -> None:
    assert refusal(lambda: alpha.send(target)) == ("PERMISSION_DENIED", "not_authorized")
    assert refusal(lambda: alpha.request(target)) == ("PERMISSION_DENIED", "not_authorized")


@pytest.mark.parametrize(("limit", "longest_ms"), [("minute", 61_000), ("hour", 3_660_000)])
def test_rate_limits(
    world: World, server: Server, service: str, index: int, limit: str, longest_ms: int
) -> None:
    with Client.of(world, server.addr, service, f"{limit}{index}") as client:
        client.open()
        for _ in range(2):
            client.send("beta")
        with pytest.raises(grpc.RpcError) as caught:
            client.send("beta")
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "rate_limited"
        headers = dict(caught.value.initial_metadata())
        assert 0 < int(headers["retry-after-ms"]) <= longest_ms


def test_an_open_circuit(world: World, server: Server, service: str, index: int, alpha: Client) -> None:
    with Client.of(world, server.addr, service, f"fragile{index}") as fragile:
        fragile.open()
        for _ in range(2):
            alpha.send(fragile_id := f"fragile{index}")
            failed = fragile.next("delivery")
            fragile.say(nack=alpha.pb.Nack(delivery_id=failed.delivery_id, reason="handler_error:ValueError"))

        # The second failure is on its way to the server: what is sent meanwhile may still be taken.
        def answer() -> tuple[str, str] | None:
            try:
                alpha.send(fragile_id)
            except grpc.RpcError as error:
                return error.code().name, error.details()
            fragile.receive()
            return None

        answers = (answer() for _ in range(1000))
        assert next(filter(None, answers)) == ("FAILED_PRECONDITION", "circuit_open")


@pytest.mark.parametrize(
    "data", ['{"card":"4111 1111 1111 1111"}', '{"password":"hunter2hunter2"}', '{"a":{"api_key":"' + "a1" * 20 + '"}}']
)
def test_blocked_payloads(alpha: Client, data: str) -> None:
    assert refusal(lambda: alpha.send("beta", data)) == ("PERMISSION_DENIED", "dlp_blocked")


def test_a_redacted_payload(alpha: Client, beta: Client) -> None:
    sent = alpha.send("beta", '{"note":"SSN 123-45-6789"}').message_id
    assert json.loads(beta.receive(sent).envelope_json)["data"] == {"note": "SSN XXX-XX-6789"}


def test_correlation_ids(alpha: Client, beta: Client) -> None:
    assert refusal(lambda: beta.reply("")) == ("INVALID_ARGUMENT", "missing_correlation_id")
    for unknown in ("0" * 32, "nonsense", "*", "a:b"):
        assert refusal(lambda: beta.reply(unknown)) == ("INVALID_ARGUMENT", "unknown_correlation_id")
    used = alpha.request("beta").correlation_id
    # A reply that policy refuses does not use the id up.
    blocked = refusal(lambda: beta.reply(used, '{"card":"4111 1111 1111 1111"}'))
    assert blocked == ("PERMISSION_DENIED", "dlp_blocked")
    beta.reply(used)
    assert refusal(lambda: beta.reply(used)) == ("INVALID_ARGUMENT", "unknown_correlation_id")


def test_an_expired_request(world: World, alpha: Client, beta: Client) -> None:
    expired = alpha.request("beta", timeout_ms=1).correlation_id
    key = f"mas.pending_request:{expired}"
    wait_until(lambda: world.redis("EXISTS", key) == "0", "the request has expired")
    assert refusal(lambda: beta.reply(expired)) == ("INVALID_ARGUMENT", "unknown_correlation_id")


def test_only_the_target_replies(world: World, server: Server, service: str, alpha: Client, beta: Client) -> None:
    asked = alpha.request("beta").correlation_id
    with Client.of(world, server.addr, service, "gamma") as gamma:
        gamma.open()
        assert refusal(lambda: gamma.reply(asked)) == ("PERMISSION_DENIED", "reply_sender_mismatch")
    beta.reply(asked)


def test_a_message_over_the_limit(alpha: Client) -> None:
    for size in (100_001, 1_000_000, 6_000_000):
        data = json.dumps({"a": "x" * size})
        with pytest.raises(grpc.RpcError) as caught:
            alpha.send("beta", data)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


# State and discovery


def test_state(alpha: Client) -> None:
    pb, t = alpha.pb, PATIENCE_S
    alpha.stub.ResetState(pb.ResetStateRequest(), timeout=t)
    alpha.stub.UpdateState(pb.UpdateStateRequest(updates={"count": "1", "list": "[1, 2]"}), timeout=t)
    alpha.stub.UpdateState(pb.UpdateStateRequest(updates={"count": "2"}), timeout=t)
    assert dict(alpha.stub.GetState(pb.GetStateRequest(), timeout=t).state) == {"count": "2", "list": "[1, 2]"}
    alpha.stub.ResetState(pb.ResetStateRequest(), timeout=t)
    assert dict(alpha.stub.GetState(pb.GetStateRequest(), timeout=t).state) == {}


def test_discovery(alpha: Client, beta: Client) -> None:
    pb, t = alpha.pb, PATIENCE_S
    for capabilities, expected in [([], ["beta"]), (["rest", "work"], ["beta"]), (["rest"], [])]:
        found = alpha.stub.Discover(pb.DiscoverRequest(capabilities=capabilities), timeout=t).agents
        assert [record.agent_id for record in found] == expected
    [record] = alpha.stub.Discover(pb.DiscoverRequest(), timeout=t).agents
    assert (list(record.capabilities), json.loads(record.metadata_json), record.status) == (["work"], {"level": 3}, "ACTIVE")
