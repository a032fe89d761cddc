"""The places of the behaviours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from places import Fake, Real


@pytest.fixture(scope="session")
def real_place() -> Iterator[Real]:
    place = Real()
    yield place
    place.close()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Real | Fake:
    """Parametrised with "real" or "fake"."""
    return request.getfixturevalue("real_place") if request.param == "real" else Fake()
