"""``docs/clients.md`` names the clients that are run, with the versions that are run."""

from __future__ import annotations

import re

import pytest

from support.agents import AGENTS
from support.generated import ROOT
from support.node_sdks import PACKAGES

PAGE = (ROOT / "docs" / "clients.md").read_text()
VERSION = re.compile(r"(?:@|==|>=)(\d[\d.]*)")


@pytest.mark.parametrize("package", [each for agent in AGENTS.values() for each in agent.packages])
def test_each_agent_is_there_with_its_version(package: str) -> None:
    found = VERSION.search(package[1:])
    assert found is not None
    assert found[1] in PAGE


@pytest.mark.parametrize("package", [each for packages in PACKAGES.values() for each in packages])
def test_each_sdk_for_node_is_there_with_its_version(package: str) -> None:
    name, _, version = package.rpartition("@")
    assert f"{name} {version}" in PAGE or f"{name} for Node {version}" in PAGE
