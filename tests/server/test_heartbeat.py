"""When a WebSocket's peer is pinged, and when it counts as gone: the decisions alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from llm_runtime.server.heartbeat import Beat, Heartbeat
from llm_runtime.server.limits import MIN_RATE, WRITE_STALL_SECONDS, WS_PING_SECONDS


@dataclass
class Wire:
    """Traffic that a test makes."""

    received: int = 0
    sent: int = 0
    is_blocked: bool = False


def beats(heart: Heartbeat, seconds: range) -> dict[int, Beat]:
    """What the heartbeat wants in each of these seconds, where it wants something."""
    found = {now: heart.look(float(now)) for now in seconds}
    return {now: beat for now, beat in found.items() if beat is not Beat.NOTHING}


def test_a_silent_peer_is_pinged_once_and_then_given_up() -> None:
    heart = Heartbeat(Wire(), 0.0)
    assert beats(heart, range(1, 41)) == {20: Beat.PING, 40: Beat.ABORT}


def test_any_byte_answers_a_ping() -> None:
    wire = Wire()
    heart = Heartbeat(wire, 0.0)
    assert beats(heart, range(1, 40)) == {20: Beat.PING}
    wire.received += 1
    assert beats(heart, range(40, 60)) == {}
    assert heart.look(60.0) is Beat.PING, "20 s after it was heard"


def test_an_answer_in_the_same_instant_counts() -> None:
    wire = Wire()
    heart = Heartbeat(wire, 0.0)
    assert heart.look(20.0) is Beat.PING
    wire.received += 2
    assert heart.look(20.0) is Beat.NOTHING
    assert heart.look(39.0) is Beat.NOTHING


def test_a_peer_that_sends_is_never_pinged() -> None:
    wire = Wire()
    heart = Heartbeat(wire, 0.0)
    for now in range(1, 200):
        wire.received += now % 15 == 0
        assert heart.look(float(now)) is Beat.NOTHING


def test_a_write_that_waits_is_left_to_the_stall_rule() -> None:
    wire = Wire(is_blocked=True)
    heart = Heartbeat(wire, 0.0)
    assert beats(heart, range(1, 200)) == {}


@pytest.mark.parametrize("written_at", range(20))
def test_what_was_written_before_the_ping_may_be_read_as_long_as_the_stall_rule_allows(written_at: int) -> None:
    """Whatever the phase of the ping: never earlier than 30 s and the time for the bytes after they were written."""
    wire = Wire()
    heart = Heartbeat(wire, 0.0)
    size = 64 * 1024
    ends: dict[Beat, int] = {}
    for now in range(1, 100):
        if now == written_at:
            wire.sent += size
        if (beat := heart.look(float(now))) is not Beat.NOTHING:
            ends.setdefault(beat, now)
    assert ends[Beat.PING] == WS_PING_SECONDS
    assert ends[Beat.ABORT] >= written_at + WRITE_STALL_SECONDS + (size / MIN_RATE if written_at else 0)
    assert ends[Beat.ABORT] <= max(2 * WS_PING_SECONDS, written_at + WRITE_STALL_SECONDS) + size / MIN_RATE + 1


def test_a_peer_that_makes_room_for_a_write_is_alive() -> None:
    wire = Wire()
    heart = Heartbeat(wire, 0.0)
    assert heart.look(20.0) is Beat.PING
    wire.is_blocked = True
    for now in range(21, 90):
        wire.sent += 1000
        assert heart.look(float(now)) is Beat.NOTHING
    wire.is_blocked = False
    assert beats(heart, range(90, 120)) == {119: Beat.ABORT}, "30 s after it made room for the last time"


def test_what_is_written_after_a_ping_does_not_delay_its_answer() -> None:
    wire = Wire()
    heart = Heartbeat(wire, 0.0)
    assert heart.look(20.0) is Beat.PING
    found = {}
    for now in range(21, 60):
        wire.sent += 100
        found[now] = heart.look(float(now))
    assert found[39] is Beat.NOTHING
    assert found[40] is Beat.ABORT
