"""Clients from stubs that grpcio-tools generates from this project's proto files: both service paths."""

from __future__ import annotations

import importlib
import json
import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

from world import PATIENCE_S, ROOT, World

SERVICES = ["mas.runtime.v1.RuntimeService", "mas.v1.MasService"]
PROTOS = ["mas/runtime/v1/runtime.proto", "mas/v1/mas.proto"]


def generate(folder: Path) -> None:
    """Generates the stubs and makes them importable."""
    from grpc_tools import protoc

    words = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main([*words, *PROTOS]) == 0
    sys.path.insert(0, str(folder))


def messages() -> ModuleType:
    """The messages, the same for both paths."""
    return importlib.import_module("mas.runtime.v1.runtime_pb2")


def stub(service: str, channel: grpc.Channel) -> Any:
    if service == SERVICES[0]:
        return importlib.import_module("mas.runtime.v1.runtime_pb2_grpc").RuntimeServiceStub(channel)
    return importlib.import_module("mas.v1.mas_pb2_grpc").MasServiceStub(channel)


class Client:
    """One connection and at most one session of an agent."""

    def __init__(self, service: str, addr: str, ca: Path, cert: Path, key: Path, instance: str = "i0") -> None:
        credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), cert.read_bytes())
        # A channel of its own, and not one that another client of the process has.
        self.channel = grpc.secure_channel(addr, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = stub(service, self.channel)
        self.pb = messages()
        self.instance = instance
        self._events: queue.Queue[Any] = queue.Queue()
        self.call: Any = None

    @classmethod
    def of(cls, world: World, addr: str, service: str, agent: str, instance: str = "i0") -> Client:
        return cls(service, addr, *world.files(agent), instance)

    def say(self, **event: Any) -> None:
        """A client event on the stream."""
        self._events.put(self.pb.ClientEvent(**event))

    def open(self) -> Any:
        """Opens the session; the Welcome."""
        self.say(hello=self.pb.Hello(instance_id=self.instance))
        self.call = self.stub.Transport(iter(self._events.get, None), timeout=PATIENCE_S)
        return self.next("welcome")

    def next(self, kind: str) -> Any:
        """The next server event, which has to be of this kind."""
        event = next(self.call)
        assert event.WhichOneof("event") == kind, event
        return getattr(event, kind)

    def receive(self, message_id: str | None = None) -> Any:
        """The delivery of this message, or the next one; what comes before it is acknowledged too."""
        while True:
            delivery = self.next("delivery")
            self.say(ack=self.pb.Ack(delivery_id=delivery.delivery_id))
            if message_id is None or json.loads(delivery.envelope_json)["message_id"] == message_id:
                return delivery

    def send(self, target: str, data: str = "{}", kind: str = "t", instance: str | None = None) -> Any:
        request = self.pb.SendRequest(
            target_id=target,
            message_type=kind,
            data_json=data,
            instance_id=self.instance if instance is None else instance,
        )
        return self.stub.Send(request, timeout=PATIENCE_S)

    def request(self, target: str, data: str = "{}", timeout_ms: int = 0) -> Any:
        request = self.pb.RequestRequest(
            target_id=target, message_type="ask", data_json=data, timeout_ms=timeout_ms, instance_id=self.instance
        )
        return self.stub.Request(request, timeout=PATIENCE_S)

    def reply(self, correlation_id: str, data: str = "{}", instance: str | None = None) -> Any:
        request = self.pb.ReplyRequest(
            correlation_id=correlation_id,
            message_type="answer",
            data_json=data,
            instance_id=self.instance if instance is None else instance,
        )
        return self.stub.Reply(request, timeout=PATIENCE_S)

    def close(self) -> None:
        self._events.put(None)
        if self.call is not None:
            self.call.cancel()
        self.channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def events(*items: Any) -> Iterator[Any]:
    """A stream of just these."""
    return iter(items)
