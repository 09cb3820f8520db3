"""Bent answers in short (`bin/fuzz` is the long search), and that a wrong reading of one would be found."""

from __future__ import annotations

import random

import pytest

from fuzz.answers import MisreadError, check, main, try_one
from fuzz.reference import STREAMS, WHOLE, Reading
from fuzz.transcripts import WIRES, mutant, valid_of

SEEDS = 150


@pytest.mark.parametrize("wire", WIRES)
def test_bent_answers_are_read_as_the_reference_reads_them(wire: str) -> None:
    faults = {seed: fault[1] for seed in range(SEEDS) if (fault := try_one(wire, seed)) is not None}
    assert faults == {}


@pytest.mark.parametrize("wire", WIRES)
def test_the_reference_reads_good_answers(wire: str) -> None:
    """And is no copy of the encoder: it says what the canonical answer says."""
    for seed in range(50):
        answer = valid_of(wire, random.Random(seed))
        found = WHOLE[wire](answer.entries[0].data) if answer.is_whole else STREAMS[wire](answer.entries)
        assert found.text in ("", "Grüße 🎉 to the world")
        assert found.thoughts in ("", "I think 1")
        assert all(arguments == f'{{"city": "Oslo {at}"}}' for at, (_, arguments) in enumerate(found.calls))
        assert found.text or found.calls


@pytest.mark.parametrize("wire", WIRES)
def test_a_wrong_reading_is_found(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that doubles a call, or loses a text, does not pass."""
    from fuzz import answers

    chance = random.Random(1)
    before = next(one for one in (valid_of(wire, chance) for _ in range(99)) if not one.is_whole)
    found = next(one for one in (mutant(before, chance) for _ in range(99)) if one.is_harmless)
    for wrong in (Reading("", "", ()), Reading("Grüße 🎉 to the world", "", (("f", "{}"),) * 9)):
        monkeypatch.setattr(answers, "reading_of", lambda _, wrong=wrong: wrong)
        with pytest.raises(MisreadError):
            check(before, found, chance)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "7", "--count", "3", "gemini"]) == 0
    assert capsys.readouterr().out == "gemini: 3 mutants, 0 read wrongly\n"
