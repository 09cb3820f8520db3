"""Actions between threads: woken once, in order, and nobody is left waiting when the other thread is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from llm_runtime.hosts.actions import Actions


def test_many_actions_are_one_wake_up_and_keep_their_order() -> None:
    woken: list[Callable[[], object]] = []
    done: list[int] = []
    actions = Actions(woken.append)
    for number in range(5):
        actions.post(lambda number=number: done.append(number))  # type: ignore[misc]
    [run] = woken
    run()
    assert done == [0, 1, 2, 3, 4]
    actions.post(lambda: done.append(5))
    assert len(woken) == 2


def test_who_posts_while_a_wake_up_fails_is_told_so_too() -> None:
    """It must not count on the wake-up of the first, or it would wait for ever."""
    errors: list[str] = []
    others: list[threading.Thread] = []

    def post() -> None:
        try:
            actions.post(lambda: None)
        except RuntimeError as exc:
            errors.append(str(exc))

    def wake(_: Callable[[], object]) -> None:
        if not others:
            others.append(threading.Thread(target=post))
            others[0].start()
            others[0].join(0.2)
        raise RuntimeError("gone")

    actions = Actions(wake)
    with pytest.raises(RuntimeError, match="gone"):
        actions.post(lambda: None)
    others[0].join()
    assert errors == ["gone"]
