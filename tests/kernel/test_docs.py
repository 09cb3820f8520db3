"""The documents tell the truth: the example runs, and each guarantee cites tests that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / "kernel.md").read_text(), re.DOTALL)


def test_the_example_in_kernel_md_runs_and_prints_what_is_said() -> None:
    (example,), (output,) = blocks("python"), blocks("text")
    assert len([line for line in example.splitlines() if line]) <= 30
    done = subprocess.run(
        [sys.executable, "-W", "error", "-"], input=example, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == output


def test_every_guarantee_cites_tests_that_exist() -> None:
    text = (DOCS / "semantics.md").read_text()
    source = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    existing = set(re.findall(r"^(?:async )?def (test_\w+)", source, re.M))
    cited = set(re.findall(r"`(test_\w+)`", text))
    assert cited <= existing, cited - existing
    guarantees = re.split(r"^\d+\. ", text.split("## Not promised")[0], flags=re.M)[1:]
    assert len(guarantees) == 32
    for guarantee in guarantees:
        assert re.search(r"`test_\w+`", guarantee), guarantee


def test_every_row_of_the_matrix_that_the_kernel_can_hold_is_named_by_a_test() -> None:
    last = {"gen": 6, "sup": 12, "act": 10}
    rows = {f"{area}_{number:02}" for area in last for number in range(1, last[area] + 1)}
    source = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    assert {row for row in rows if f"def test_{row}_" not in source} == set()
