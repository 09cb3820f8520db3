"""For every test here: no file, socket, thread or lost exception is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_actors.testing import no_open_ends


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    with no_open_ends():
        yield
