"""Keeps notes. They are at the server: a restart of this program, or of everything, changes nothing."""

from mas_agent import Agent, Message
from pydantic import BaseModel

agent = Agent()


class Note(BaseModel):
    text: str


class Notes(BaseModel):
    count: int = 0
    last: list[str] = []


@agent.on("note")
async def note(note: Note, message: Message) -> None:
    def add(notes: Notes) -> None:
        notes.count += 1
        notes.last = [*notes.last[-9:], note.text]

    # Of two changes at once neither is lost, also where several instances run.
    notes = await agent.change_state(Notes, add)
    await message.reply("noted", {"count": notes.count})


agent.run()
