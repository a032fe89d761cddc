"""A server in memory, for the tests of agents: no certificates, no network, the real client.

::

    async with FakeServer() as server:
        server.attach("assistant", agent)          # the agent of your program, with its handlers
        async with agent, server.agent("asker") as asker:
            reply = await asker.request("assistant", "question", {"text": "Why?"})

What it decides, it decides as the real one does where there are no limits, no data-loss prevention and no disk. What it
does not have can be provoked: :meth:`FakeServer.refuse`, :meth:`FakeServer.lose_answers`,
:meth:`FakeServer.disconnect`.
"""

from ._inboxes import DeadLetter, Recorded
from ._server import FakeServer

__all__ = ["DeadLetter", "FakeServer", "Recorded"]
