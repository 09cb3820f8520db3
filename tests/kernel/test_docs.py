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
    assert len(guarantees) == 33
    for guarantee in guarantees:
        assert re.search(r"`test_\w+`", guarantee), guarantee
