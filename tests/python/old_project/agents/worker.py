from mas import Agent, AgentMessage

from agents.models import Task


class WorkerAgent(Agent):
    async def on_start(self) -> None:
        print("worker starts", flush=True)

    @Agent.on("square", model=Task)
    async def on_square(self, message: AgentMessage, task: Task) -> None:
        await message.reply("squared", {"square": task.number**2})

    async def on_stop(self) -> None:
        print("worker stops", flush=True)
