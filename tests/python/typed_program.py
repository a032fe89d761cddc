"""What type checkers understand of a program; it is not run."""

from __future__ import annotations

from dataclasses import dataclass

from mas_agent import Agent, CallNext, Commit, Message, Sent, StateOf, blocking
from mas_agent.testing import FakeServer
from pydantic import BaseModel
from typing_extensions import TypedDict, assert_type


class Memory(BaseModel):
    count: int = 0


@dataclass
class Order:
    number: int


class Note(TypedDict):
    text: str


class Desk(Agent):
    """A program may have a class of its own."""

    def __init__(self) -> None:
        super().__init__(repeat_sends=False)
        self.on("order")(self.order)

    async def order(self, order: Order, message: Message, memory: StateOf[Memory]) -> None:
        assert_type(memory.value, Memory)
        assert_type(await memory.change(lambda one: Memory(count=one.count + 1)), Memory)
        note: Note = {"text": "on its way"}
        async with message.commit() as commit:
            assert_type(commit, Commit)
            pending = commit.request("stock", "reserve", order, timeout=5)
            commit.reply("accepted", note)
        assert_type(commit.sent, list[Sent])
        assert_type((await pending.get()).parse(Memory), Memory)


class Script(blocking.Agent):
    pass


async def programs(server: FakeServer) -> None:
    async with Desk() as desk:
        assert_type(desk, Desk)
    assert_type(server.attach("desk", desk), Desk)
    with Script() as script:
        assert_type(script, Script)
        assert_type(script.request("desk", "order"), blocking.Message)
        assert_type(script.change_state(Memory, lambda one: None), Memory)


agent = Agent()


@agent.middleware
async def around(message: Message, call_next: CallNext) -> None:
    await call_next(message)


@agent.on_other
async def rest(message: Message) -> None: ...


@agent.on("plain", retry_on=[ConnectionError])
def plain(message: blocking.Message, me: blocking.Agent) -> int:
    return me.backlog


assert_type(plain(message=blocking.Message.__new__(blocking.Message), me=Script()), int)
