"""What pytest needs for these tests: coroutines as tests, generated stubs, the 0.4.5 client."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import stubs

# A test that takes longer hangs.
TEST_TIMEOUT_S = 60.0
# The interpreter that has mas-framework 0.4.5; scripts/python-env makes it.
OLD_PYTHON = "MAS_OLD_PYTHON"
NOT_RUN: list[str] = []
# Fixtures of behaviours/, which has no conftest of its own: `conftest` is imported by its name.
pytest_plugins = ["places"]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs coroutine functions, within a time."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_TIMEOUT_S))
    return True


@pytest.fixture(scope="session", autouse=True)
def generated(tmp_path_factory: pytest.TempPathFactory) -> None:
    stubs.generate(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="session")
def old_python() -> Path:
    """The interpreter with the real client of the 0.4 generation."""
    why = _no_old_python()
    if why:
        if why not in NOT_RUN:
            NOT_RUN.append(why)
        pytest.skip(f"NOT RUN: {why}")
    return Path(os.environ[OLD_PYTHON])


def _no_old_python() -> str | None:
    path = os.environ.get(OLD_PYTHON)
    if not path:
        return os.environ.get("MAS_OLD_PYTHON_MISSING") or f"{OLD_PYTHON} names no interpreter with mas-framework 0.4.5"
    asked = "import importlib.metadata as m; print(m.version('mas-framework'))"
    found = subprocess.run([path, "-c", asked], capture_output=True, text=True, check=False)
    if found.stdout.strip() != "0.4.5":
        return f"{path} has not mas-framework 0.4.5: {found.stdout}{found.stderr[-200:]}"
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for why in NOT_RUN:
        terminalreporter.section("NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"The tests of the real 0.4.5 client did not run: {why}")
