"""A key is not printed, encoded or carried away by accident."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.secret import Secret

CANARY = "sk-CANARY-0123456789"
SECRET = Secret(CANARY)


class Holder(msgspec.Struct):
    key: Secret


@dataclasses.dataclass
class Held:
    key: Secret


def logged(*args: object, **extra: object) -> str:
    """What a formatter makes of a record, with all its fields."""
    record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "%s %r", args, None, extra=extra)
    return logging.Formatter("%(message)s").format(record) + str(vars(record))


def raised(error: Exception) -> str:
    """A traceback with the locals of each frame."""
    try:
        raise error
    except ValueError as exc:
        return "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format()) + repr(exc.args)


SHOWN: dict[str, Callable[[], object]] = {
    "repr": lambda: repr(SECRET),
    "str": lambda: str(SECRET),
    "f-string": lambda: f"{SECRET} {SECRET!r} {SECRET!s} {SECRET:>40}",
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031
    "format": lambda: "{} {:x}".format(SECRET, SECRET),  # noqa: UP032
    "in a list": lambda: str([SECRET, {"key": SECRET}]),
    "struct": lambda: repr(Holder(SECRET)),
    "struct as dict": lambda: repr(msgspec.structs.asdict(Holder(SECRET))),
    "dataclass": lambda: repr(Held(SECRET)),
    "dataclass as dict": lambda: repr(dataclasses.asdict(Held(SECRET))),
    "logging": lambda: logged(SECRET, [SECRET], key=SECRET),
    "exception": lambda: raised(ValueError(SECRET, Holder(SECRET))),
    "attributes": lambda: repr(getattr(SECRET, "__dict__", "")),
    "copy": lambda: repr((copy.copy(SECRET), copy.deepcopy([SECRET]))),
    "json with a default": lambda: json.dumps(SECRET, default=str),
    "msgspec with a hook": lambda: msgspec.json.encode(Holder(SECRET), enc_hook=str),
}
REFUSED: dict[str, Callable[[], object]] = {
    "pickle": lambda: pickle.dumps(SECRET),
    "pickle in a struct": lambda: pickle.dumps(Holder(SECRET)),
    "json": lambda: json.dumps(SECRET),
    "msgspec json": lambda: msgspec.json.encode(Holder(SECRET)),
    "msgpack": lambda: msgspec.msgpack.encode(SECRET),
    "builtins": lambda: msgspec.to_builtins(SECRET),
}


@pytest.mark.parametrize("how", SHOWN)
def test_whatever_shows_it_does_not_show_the_key(how: str) -> None:
    shown = SHOWN[how]()
    assert "CANARY" not in (shown.decode() if isinstance(shown, bytes) else str(shown))


@pytest.mark.parametrize("how", REFUSED)
def test_what_would_carry_it_away_is_refused_without_telling(how: str) -> None:
    with pytest.raises(TypeError) as caught:
        REFUSED[how]()
    assert "CANARY" not in str(caught.value)


def test_only_reveal_tells() -> None:
    assert SECRET.reveal() == CANARY
    assert str(SECRET) == f"{SECRET:>99}" == "Secret(***)"


@given(st.text(), st.text())
def test_two_are_equal_when_their_keys_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one).matches(other) is (one == other)
    assert Secret(one) != one
    assert len({Secret(one), Secret(one)}) == 1


def test_it_is_struck_from_what_a_stranger_says() -> None:
    assert SECRET.struck_from(f"no key {CANARY}, and {CANARY} again") == "no key [redacted], and [redacted] again"
    assert SECRET.struck_from("nothing of it") == "nothing of it"
    assert Secret("k").struck_from("a key") == "a key"
    assert Secret("").struck_from("a key") == "a key"
