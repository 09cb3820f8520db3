"""One browser for all tests of a run: starting it is what takes time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.browser import BINARY, browser


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at which the browser is driven."""
    if BINARY is None:
        pytest.skip("chromium is not installed")
    with browser(tmp_path_factory.mktemp("chromium")) as address:
        yield address
