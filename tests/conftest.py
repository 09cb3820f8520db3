"""For every test: no task, file, socket, thread or lost exception is left behind."""

from __future__ import annotations

import functools
import inspect
import signal
from collections.abc import Awaitable, Callable, Iterator

import hypothesis
import pytest

from llm_actors.testing import no_open_ends, nothing_left

pytest.register_assert_rewrite("support.conformance", "support.streams")

pytest_plugins = ["support.time_limit", "support.suite"]

# The one profile of all property tests. No deadline per example: on a busy machine it says nothing about the code.
# Half of Hypothesis' own number of examples: the suite runs often, and `bin/fuzz` looks longer.
hypothesis.settings.register_profile("llm-runtime", deadline=None, print_blob=True, max_examples=35)
hypothesis.settings.load_profile("llm-runtime")


def pytest_configure() -> None:
    """A shell that runs the suite in the background has it ignore Ctrl-C; the programs that tests start would, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    with no_open_ends():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = leaving_nothing(item.obj)


def leaving_nothing(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def watched(*args: object, **kwargs: object) -> None:
        async with nothing_left():
            await test(*args, **kwargs)

    return watched
