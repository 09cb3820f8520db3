"""``docs/architecture.md`` promises only what tests hold."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "architecture.md").read_text()


def test_every_row_of_what_happens_when_a_service_is_away_cites_tests_that_exist() -> None:
    section = PAGE.partition("## When a service is not running")[2].partition("\n## ")[0]
    source = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    existing = set(re.findall(r"^(?:async )?def (test_\w+)", source, re.M))
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| not running")]
    assert len(rows) == 12
    for row in rows:
        assert re.search(r"`test_\w+`", row.rsplit("|", 2)[1]), row
    assert set(re.findall(r"`(test_\w+)`", section)) <= existing


def test_where_to_look_names_files_and_functions_that_exist() -> None:
    section = PAGE.partition("## Where to look")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        source = ""
        for name in re.findall(r"`([^`]+)`", row.split("|")[2]):
            if "/" in name:
                path = TESTS.parent / name
                assert path.exists(), row
                source = path.read_text() if path.is_file() else ""
            elif re.fullmatch(r"[A-Z]\w+\.\w+", name):
                cls, _, method = name.partition(".")
                assert f"class {cls}" in source, row
                assert f"def {method}(" in source.partition(f"class {cls}")[2], row


def test_the_layers_are_those_that_are_held() -> None:
    from test_architecture import LAYERS

    section = PAGE.partition("The parts of `llm_actors` are layers")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [set(re.findall(r"`(\w+)`", cell)) for cell in first_cells] == list(LAYERS)
