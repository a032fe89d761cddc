"""The server's traces and metrics, at a collector that knows nothing of this server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector import Collector, values
from stubs import SERVICES, Client
from world import PATIENCE_S, UNLIMITED, Server, World, wait_until

AGENTS = """
permissions:
  - {type: allow, sender: alpha, targets: [beta]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta}
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def world_with(collector: Collector, more: str = "") -> World:
    telemetry = (
        f"telemetry: {{enabled: true, otlp_endpoint: '{collector.url}', environment: test, service_name: mas-here, "
        f"headers: {{x-token: secret}}, metrics_export_interval_ms: 200{more}}}"
    )
    world = World(AGENTS, gateway=f"{UNLIMITED}, {telemetry}", settings="admin_listen_addr: 127.0.0.1:0\n")
    world.issue("alpha", "beta")
    return world


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def send(client: Client, target: str, parent: str | None = None) -> Any:
    """A unary call, with a trace context in its metadata."""
    request = client.pb.SendRequest(target_id=target, message_type="t", data_json="{}", instance_id=client.instance)
    metadata = [("traceparent", parent)] if parent else []
    return client.stub.Send(request, timeout=PATIENCE_S, metadata=metadata)


def pair(world: World, server: Server) -> tuple[Client, Client]:
    alpha, beta = (Client.of(world, server.addr, SERVICES[0], name) for name in ("alpha", "beta"))
    alpha.open()
    beta.open()
    return alpha, beta


def scrape(server: Server) -> str:
    with urllib.request.urlopen(f"http://{server.ready['admin_addr']}/metrics", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text


def test_spans_are_in_the_senders_trace_and_lead_to_the_proof(generated: None, collector: Collector) -> None:
    with world_with(collector) as world:
        server = world.server()
        alpha, beta = pair(world, server)
        with alpha, beta:
            sent = send(alpha, "beta", PARENT)
            delivered = beta.receive()
            assert json.loads(delivered.envelope_json)["meta"]["traceparent"] == PARENT, "passed on untouched"
            with pytest.raises(grpc.RpcError):
                send(alpha, "alpha", PARENT)
            wait_until(lambda: collector.named("deliver beta") and collector.named("send alpha"), "the spans")
        [call], [delivery] = collector.named("send beta"), collector.named("deliver beta")
        trace, span = bytes.fromhex(PARENT.split("-")[1]), bytes.fromhex(PARENT.split("-")[2])
        assert (call.trace_id, call.parent_span_id) == (trace, span)
        assert (delivery.trace_id, delivery.parent_span_id) == (trace, span)
        assert [(link.trace_id, link.span_id) for link in delivery.links] == [(trace, call.span_id)]
        assert delivery.span_id not in (call.span_id, span, b"")
        assert call.kind == Span.SPAN_KIND_SERVER
        says = values(call.attributes)
        assert says["messaging.system"] == "mas"
        assert says["messaging.destination.name"] == "beta"
        assert says["messaging.message.id"] == sent.message_id
        assert says["mas.decision"] == "ALLOWED"
        assert call.start_time_unix_nano <= call.end_time_unix_nano <= delivery.end_time_unix_nano
        assert [event.name for event in call.events] == ["decided", "committed"]
        assert values(delivery.attributes)["mas.outcome"] == "ack"
        assert values(delivery.attributes)["mas.attempt"] == 1

        # The trace leads to the record.
        assert (sent.receipt.lane, sent.receipt.sequence) == (says["mas.receipt.lane"], says["mas.receipt.sequence"])
        assert sent.receipt.policy_version.hex() == says["mas.policy_version"]
        shown = world.mas("audit", "query", "--config", str(world.config), "--action", "send")
        records = {record["seq"]: record for record in map(json.loads, shown.splitlines())}
        assert records[says["mas.receipt.sequence"]]["rule"] == says["mas.rule"]

        [refused] = collector.named("send alpha")
        assert refused.status.code == Status.STATUS_CODE_ERROR
        assert values(refused.attributes)["error.type"] == "not_authorized"
        resource, _ = collector.spans[0]
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("mas-here", "test")
        assert all(headers["x-token"] == "secret" for headers in collector.headers)

        def by_decision() -> dict[tuple[str, str], float]:
            counted = collector.metrics.get("mas_messages_total")
            rows = counted.sum.data_points if counted else []
            return {(row["call"], row["decision"]): n for row, n in ((values(p.attributes), p.as_double) for p in rows)}

        wait_until(lambda: by_decision().get(("send", "AUTHZ_DENIED")) == 1, "metrics")
        assert by_decision()[("send", "ALLOWED")] == 1
        counter = collector.metrics["mas_messages_total"].sum
        assert counter.is_monotonic and counter.aggregation_temporality == 2
        histogram = collector.metrics["mas_commit_duration_seconds"].histogram.data_points[0]
        assert sum(histogram.bucket_counts) == histogram.count > 0
        assert len(histogram.bucket_counts) == len(histogram.explicit_bounds) + 1


def test_a_context_in_the_message_counts_where_there_is_no_metadata(generated: None, collector: Collector) -> None:
    with world_with(collector, ", sample_ratio: 0.0") as world:
        server = world.server()
        alpha, beta = pair(world, server)
        with alpha, beta:
            request = alpha.pb.SendRequest(
                target_id="beta", data_json="{}", instance_id="i0", traceparent=PARENT, tracestate="a=b"
            )
            alpha.say(submit=alpha.pb.Submit(submissions=[alpha.pb.Submission(reference=1, send=request)]))
            meta = json.loads(beta.receive().envelope_json)["meta"]
            assert (meta["traceparent"], meta["tracestate"]) == (PARENT, "a=b")
            wait_until(lambda: collector.named("deliver beta"), "the spans")
        [call] = collector.named("send beta")
        assert call.parent_span_id.hex() == PARENT.split("-")[2]


def test_a_call_that_is_repeated_has_spans_of_its_own(generated: None, collector: Collector) -> None:
    with world_with(collector) as world:
        server = world.server()
        alpha, beta = pair(world, server)
        with alpha, beta:
            request = alpha.pb.SendRequest(
                target_id="beta", data_json="{}", instance_id="i0", traceparent=PARENT, idempotency_key="order-1"
            )
            sent = [alpha.stub.Send(request, timeout=PATIENCE_S).message_id for _ in range(2)]
            assert sent[0] == sent[1]
            beta.receive()
            wait_until(lambda: len(collector.named("send beta")) == 2 and collector.named("deliver beta"), "the spans")
        first, again = collector.named("send beta")
        assert first.span_id != again.span_id and first.trace_id == again.trace_id
        [delivery] = collector.named("deliver beta")
        assert [link.span_id for link in delivery.links] == [first.span_id]


def test_senders_decide_for_their_traces_and_the_ratio_for_the_others(generated: None, collector: Collector) -> None:
    with world_with(collector, ", sample_ratio: 0.0") as world:
        server = world.server()
        alpha, beta = pair(world, server)
        with alpha, beta:
            for parent in (PARENT[:-2] + "00", None, PARENT):
                send(alpha, "beta", parent)
                beta.receive()
            wait_until(lambda: collector.named("deliver beta"), "the kept one's spans")
        server.stop()
        assert len(collector.named("send beta")) == len(collector.named("deliver beta")) == 1


def test_failed_and_lost_deliveries_say_so(generated: None, collector: Collector) -> None:
    with world_with(collector) as world:
        server = world.server()
        alpha, beta = pair(world, server)
        with alpha:
            with beta:
                send(alpha, "beta", PARENT)
                delivery = beta.next("delivery")
                beta.say(nack=beta.pb.Nack(delivery_id=delivery.delivery_id, reason="no", retryable=False))
                wait_until(lambda: collector.named("deliver beta"), "the refused delivery's span")
                send(alpha, "beta", PARENT)
                beta.next("delivery")
            wait_until(lambda: len(collector.named("deliver beta")) == 2, "the lost delivery's span")
        outcomes = [values(span.attributes)["mas.outcome"] for span in collector.named("deliver beta")]
        assert outcomes == ["dead", "lost"]
        assert collector.named("deliver beta")[0].status.message == "no"


def test_a_collector_that_is_away_costs_spans_and_nothing_else(generated: None, collector: Collector) -> None:
    with world_with(collector, ", export_metrics: false") as world:
        server = world.server()
        alpha, beta = pair(world, server)

        def counted(outcome: str) -> float:
            lines = [line for line in scrape(server).splitlines() if line.startswith("mas_telemetry_spans_total")]
            return next(float(line.split()[-1]) for line in lines if f'"{outcome}"' in line)

        with alpha, beta:
            collector.status = 400
            send(alpha, "beta")
            beta.receive()
            wait_until(lambda: counted("dropped") >= 1, "what is lost is counted")
            collector.status = 200
            send(alpha, "beta")
            beta.receive()
            # Without a sender's trace a message is a trace of its own.
            wait_until(lambda: collector.named("send beta") and collector.named("deliver beta"), "the spans")
            call, delivery = collector.named("send beta")[-1], collector.named("deliver beta")[-1]
            assert call.parent_span_id == b"" and delivery.parent_span_id == call.span_id
            assert call.trace_id == delivery.trace_id
            wait_until(lambda: counted("exported") >= 2, "what is exported is counted")
