"""What the parent and a worker say to each other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from llm_runtime.workers.link import LONGEST_MISTAKES, Alive, FromWorker, Outcome, Ready, WorkerLink, cut


@contextmanager
def full() -> Iterator[tuple[WorkerLink[FromWorker], socket.socket]]:
    """A link whose other end has read nothing for long, and that end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        try:
            while True:
                ours.send(b"\n")
        except BlockingIOError:
            pass
        yield WorkerLink(ours, msgspec.json.Decoder(FromWorker)), theirs


def rest(end: socket.socket) -> bytes:
    end.settimeout(5)
    found = b""
    while data := end.recv(65_536):
        found += data
    return found.strip()


def test_an_other_end_that_does_not_read_is_given_up_and_that_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with full() as (link, theirs):
        link.send(Ready())
        link.send(Ready())
        assert rest(theirs) == b""
    assert [each.message for each in caplog.records] == [
        "the link between parent and worker is closed, because the other process does not read its messages"
    ]


def test_what_is_said_every_second_may_be_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A parent that stands still for minutes finds its workers as they were."""
    with full() as (link, theirs):
        link.send(Alive())
        theirs.recv(1_000_000)
        link.send(Ready())
        link.close()
        assert rest(theirs) == b'{"type":"ready"}'
    assert caplog.text == ""


def test_the_other_end_that_has_gone_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        WorkerLink(ours, msgspec.json.Decoder(FromWorker)).send(Ready())
    assert caplog.text == ""


@pytest.mark.parametrize("mistakes", [["é" * 100_000], [f"mistake {n}" for n in range(100_000)]])
def test_any_number_of_mistakes_fits(mistakes: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        WorkerLink(ours, msgspec.json.Decoder(FromWorker)).send(Outcome(mistakes=cut(mistakes)))
        said = msgspec.json.decode(theirs.makefile("rb").readline(), type=Outcome)
    assert said.mistakes[0][:9] == mistakes[0][:9]
    assert sum(len(each.encode()) for each in said.mistakes) < LONGEST_MISTAKES + 100
    assert len(said.mistakes) == 1 or said.mistakes[-1] == f"and {len(mistakes) - len(said.mistakes) + 1} more"


def test_few_mistakes_are_all_told() -> None:
    assert cut(["one", "two"]) == ("one", "two")
