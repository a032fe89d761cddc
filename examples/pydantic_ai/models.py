"""The models: MODEL names a real one, such as `openai:gpt-5`; without it there is one that needs no network."""

import os

from pydantic_ai.models import Model
from pydantic_ai.models.test import TestModel


def model(says: str | None = None) -> Model | str:
    """A model that calls every tool once. ``says``: its answer; what the tools have returned where there is none."""
    return os.environ.get("MODEL") or TestModel(custom_output_text=says)
