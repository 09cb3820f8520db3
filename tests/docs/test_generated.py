"""The documentation that is made from the code is up to date."""

from pathlib import Path

import pytest

from support.bounds import ANSWERS, BOUNDS, CONSTANTS, JSON, OPTIONS, OTHERS
from support.generated import ROOT, documents, with_block


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_it_says_what_the_code_says(path: Path) -> None:
    assert path.read_text() == documents()[path], f"run bin/make-docs: {path.relative_to(ROOT)} is out of date"


def test_a_block_is_replaced_and_nothing_else() -> None:
    assert with_block("a\n<!-- x -->\nold\n<!-- /x -->\nb", "x", "new\\1") == "a\n<!-- x -->\nnew\\1\n<!-- /x -->\nb"
    with pytest.raises(ValueError, match="there must be one"):
        with_block("nothing", "x", "new")


def test_every_limit_of_the_server_is_on_its_page() -> None:
    listed = {bound.name for bound in BOUNDS}
    assert len(listed) == len(BOUNDS)
    assert listed | OTHERS == {*OPTIONS, *CONSTANTS, *JSON, *ANSWERS}, "add a row to tests/support/bounds.py"


def test_the_tests_that_hold_the_limits_exist() -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    named = {test for bound in BOUNDS for test in bound.tests}
    assert {test for test in named if f"def {test}(" not in source} == set()
