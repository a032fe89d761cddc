"""Every behaviour that docs/clients.md names has a test here, and none is tested that it does not name."""

from __future__ import annotations

import re

from world import HERE, ROOT


def test_every_behaviour_has_a_test() -> None:
    promised = set(re.findall(r"^- \*\*([a-z]+\.[a-z]+)\*\*", (ROOT / "docs" / "clients.md").read_text(), re.MULTILINE))
    texts = [path.read_text() for path in (HERE / "behaviours").glob("test_*.py")]
    tested = {name for text in texts for name in re.findall(r'^@behaviour\("([a-z]+\.[a-z]+)"\)', text, re.MULTILINE)}
    assert len(promised) >= 40
    assert tested == promised, f"without a test: {sorted(promised - tested)}; not promised: {sorted(tested - promised)}"
