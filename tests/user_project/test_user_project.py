"""The strictly typed program of a user has every public name in it. That it is correct, mypy and pyright check."""

from __future__ import annotations

import ast
from pathlib import Path

import llm_runtime
from llm_runtime import aio, sync

FILE = Path(__file__).with_name("program.py")


def test_every_public_name_is_used() -> None:
    tree = ast.parse(FILE.read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert set(llm_runtime.__all__) - used == set()
    for module in (aio, sync):
        name = module.__name__.rpartition(".")[2]
        assert {(name, each) for each in module.__all__} - attributes == set()


def test_it_is_checked_at_the_strictest() -> None:
    assert FILE.read_text().startswith("# pyright: strict\n")
    project = (FILE.parents[2] / "pyproject.toml").read_text()
    assert 'include = ["runtime", "actors", "protocol", "tests/user_project"]' in project
