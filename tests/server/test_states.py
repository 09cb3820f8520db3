"""The tables of states: complete for what comes from outside, and nothing is left that cannot be reached or left."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from llm_runtime.server.transitions import (
    HTTP,
    SESSION,
    HttpChange,
    HttpState,
    ImpossibleChange,
    SessionChange,
    SessionState,
    StateMachine,
)

OUTSIDE = (HttpChange.CLIENT_LEFT, HttpChange.TOO_LATE, HttpChange.DRAINED, HttpChange.EVICTED)


@pytest.mark.parametrize("state", HttpState)
def test_what_comes_from_outside_may_come_in_any_state(state: HttpState) -> None:
    assert set(OUTSIDE) <= HTTP[state].keys()


@pytest.mark.parametrize("state", SessionState)
def test_a_session_can_be_ended_in_any_state(state: SessionState) -> None:
    assert {SessionChange.EXPIRED, SessionChange.DRAINED, SessionChange.HUNG_UP} <= SESSION[state].keys()


@pytest.mark.parametrize(("table", "start"), [(HTTP, HttpState.IDLE), (SESSION, SessionState.OPEN)])
def test_every_state_is_reached(table: Mapping[Enum, Mapping[Enum, Enum]], start: Enum) -> None:
    seen, todo = {start}, [start]
    while todo:
        for state in table[todo.pop()].values():
            if state not in seen:
                seen.add(state)
                todo.append(state)
    assert seen == set(type(start))


def test_a_client_that_left_is_not_forgotten() -> None:
    """Whatever happens then, no further request is waited for."""
    for change, state in HTTP[HttpState.LEFT].items():
        assert state in {
            HttpState.LEFT,
            HttpState.ANSWERING_LEFT,
            HttpState.LAST_WORDS,
            HttpState.EVICTED,
        }, change
    assert HttpState.IDLE not in HTTP[HttpState.ANSWERING_LEFT].values()


def test_a_connection_that_is_cut_stays_cut() -> None:
    assert set(HTTP[HttpState.CUT].values()) == {HttpState.CUT}
    assert HTTP[HttpState.CUT].keys() == set(HttpChange)


def test_a_change_that_is_impossible_is_a_bug() -> None:
    life: StateMachine[Any, Any] = StateMachine(HttpState.IDLE, HTTP)
    with pytest.raises(ImpossibleChange, match="a handshake"):
        life.change(HttpChange.UPGRADED)
    assert life.state is HttpState.IDLE
