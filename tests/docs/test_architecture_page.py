"""``docs/architecture.md`` promises only what tests hold."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "architecture.md").read_text()


def test_every_row_of_what_happens_when_a_service_is_away_cites_tests_that_exist() -> None:
    section = PAGE.partition("## When a service is away")[2].partition("\n## ")[0]
    source = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    existing = set(re.findall(r"^(?:async )?def (test_\w+)", source, re.M))
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| what is away")]
    assert len(rows) == 10
    for row in rows:
        assert re.search(r"`test_\w+`", row.rsplit("|", 2)[1]), row
    assert set(re.findall(r"`(test_\w+)`", section)) <= existing
