"""The agent for programs without an event loop: scripts, notebooks, plain functions as handlers.

An :class:`Agent` of this module runs an event loop in a thread of its own, so that it works inside of a running loop,
too. Handlers that are plain functions take ``Message``, ``Agent`` and ``StateOf`` of this module, and their calls
block.
"""

from ._agent import Agent
from ._parts import Commit, Message, PendingReply, StateOf

__all__ = ["Agent", "Commit", "Message", "PendingReply", "StateOf"]
