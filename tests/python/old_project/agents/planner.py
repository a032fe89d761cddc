"""As a project of the Python server has it; nothing in it knows of this server."""

import asyncio

from mas import Agent, AgentMessage

from agents.models import Totals


class PlannerAgent(Agent[Totals]):
    def __init__(self, agent_id, *, rounds, greeting="hello", **kwargs):
        super().__init__(agent_id, state_model=Totals, **kwargs)
        self.rounds = rounds
        self.greeting = greeting

    async def on_start(self) -> None:
        self.task = asyncio.create_task(self.converse())

    async def converse(self) -> None:
        for number in range(self.rounds):
            reply = await self.request("worker", "square", {"number": number}, timeout=20)
            await self.update_state(
                {"rounds": self.state.rounds + 1, "sum": self.state.sum + reply.data["square"]}
            )
        print(f"{self.greeting['text']}: {self.state.rounds} rounds, sum {self.state.sum}", flush=True)

    @Agent.on("note")
    async def on_note(self, message: AgentMessage, _) -> None:
        print(f"note {message.data['n']}", flush=True)

    async def on_stop(self) -> None:
        print("planner stops", flush=True)
