"""The storm's own judgement: it says what happened, and sees what it is for."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest

from bench._storm.clients import unchunked
from bench._storm.plan import Call, slots
from bench._storm.score import Ended, Score, percentile
from bench.storm import Books, Outcome, verdict

CALL = Call(7, "slow", 3, 20.0)
METRICS = """# TYPE llm_runtime_actor_restarts counter
llm_runtime_actor_restarts_total{actor="llm-runtime/core/providers/broken/provider"} 3
llm_runtime_actor_restarts_total{actor="llm-runtime/core/providers/main/provider"} 0
# TYPE llm_runtime_requests_running gauge
llm_runtime_requests_running 0
"""


def ended(call: Call, outcome: str, text: str | None = None) -> Ended:
    made = Ended(call, 0.0)
    for at, piece in enumerate((call.text if text is None else text).split(" ")[1:]):
        made.add(f" {piece}", 10.0 + at * 0.05)
    made.outcome = outcome
    return made


def scored(*calls: Ended, at: float = 1.0) -> Score:
    score = Score()
    for each in calls:
        score.end(each, at)
    return score


def calm() -> Outcome:
    """A storm after which everything is as it should be."""
    fast, broken = CALL._replace(kind="fast"), CALL._replace(kind="broken", fault="crash")
    score = scored(ended(CALL, "whole"), ended(fast, "whole"), ended(broken, "failed crashed", ""))
    score.lag[0] = 1
    books = Books(20, 10)
    memory = [(float(second), 50.0) for second in range(60)]
    return Outcome(score, books, books, METRICS, {"seen": {"open": 0}, "late": {"0": 9}}, memory, 30.0, 0.0, "")


def test_the_same_seed_is_the_same_storm() -> None:
    storms = [[list(islice(slot.calls(seed), 20)) for slot in slots(4)] for seed in (1, 1, 2)]
    assert storms[0] == storms[1] != storms[2]


def test_a_third_leaves_in_every_way_and_a_twentieth_meets_a_fault() -> None:
    calls = [call for slot in slots(4) for _, call in islice(slot.calls(3), 50) if call.kind != "broken"]
    left, faults = Counter(call.leaves for call in calls), Counter(bool(call.fault) for call in calls)
    assert 0.30 < 1 - left[""] / len(calls) < 0.36
    assert {"client", "deadline", "disconnect", "reset"} < set(left)
    assert 0.04 < faults[True] / len(calls) < 0.06


def test_what_untouched_streams_lose_is_wrong() -> None:
    assert not scored(ended(CALL, "whole")).wrong
    assert scored(ended(CALL, "failed crashed", " 7.0")).wrong == {"untouched slow stream: failed crashed": 1}
    assert scored(ended(CALL, "whole", " 7.0 7.2")).wrong == {"slow: text that was not sent": 1}
    assert scored(ended(CALL, "whole", " 7.0 7.1")).wrong == {"slow: called whole, with text missing": 1}


def test_others_may_end_early_but_must_end() -> None:
    left = CALL._replace(leaves="reset", leaves_after=1.0)
    assert not scored(ended(left, "left", " 7.0")).wrong
    assert scored(ended(left, "hung", " 7.0")).wrong == {"reset: hung": 1}
    late = CALL._replace(leaves="deadline", leaves_after=1.0)
    assert not scored(ended(late, "failed deadline", ""), at=2.0).wrong
    assert scored(ended(late, "failed deadline", ""), at=7.0).wrong == {"deadline passed, and the call did not end": 1}


def test_a_score_comes_whole_from_another_process() -> None:
    score = calm().score
    assert Score.from_json(json.loads(json.dumps(score.to_json()))).to_json() == score.to_json()


def test_percentiles() -> None:
    assert [percentile(Counter(range(1, 101)), share) for share in (0.5, 0.99)] == [50, 99]


def test_chunks_are_read_at_any_cut() -> None:
    body = b"5\r\nhello\r\n3\r\n \r\n\r\n0\r\n\r\n"
    for cut in range(len(body)):
        buffer = bytearray(body[:cut])
        first, _ = unchunked(buffer)
        buffer += body[cut:]
        second, is_last = unchunked(buffer)
        assert (first + second, is_last) == (b"hello \r\n", True)


def test_a_calm_storm_is_as_it_should_be() -> None:
    assert verdict("daemon", calm(), 60) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"after": Books(21, 10)}, "1 tasks are left"),
        ({"after": Books(20, 14)}, "4 files are left"),
        ({"metrics": METRICS.replace("running 0", "running 2")}, "requests_running is 2, not 0"),
        ({"metrics": METRICS.replace("} 0", "} 2")}, "restarted: llm-runtime/core/providers/main/provider (2)"),
        ({"log": "WARNING llm-runtime/core/providers/main/provider crashed: X"}, "1 lines of trouble in the log"),
        ({"provider": {"seen": {"open": 1}, "late": {"0": 9}}}, "calls are open at the provider"),
        ({"memory": [(float(at), 50.0 + at) for at in range(60)]}, "memory grows by 60.00 MiB a minute, at most 20"),
    ],
)
def test_whatever_is_left_is_wrong(change: dict[str, object], told: str) -> None:
    assert verdict("daemon", calm()._replace(**change), 60) == [f"daemon: {told}"]  # type: ignore[arg-type]


def test_a_long_gap_is_wrong_unless_it_is_our_own() -> None:
    outcome = calm()
    outcome.score.gaps["slow"].update({300: 100})
    assert verdict("daemon", outcome, 60) == [
        "daemon: gaps of untouched streams: p99 300 ms without our own, at most 250"
    ]
    assert verdict("daemon", outcome._replace(waited_seconds=30.0), 60) == [], "the machine had other work"
    outcome.score.lag.update({100: 100})
    assert verdict("daemon", outcome, 60) == []


def test_the_provider_that_crashes_on_purpose_may_say_so() -> None:
    assert verdict("daemon", calm()._replace(log="llm-runtime/core/providers/broken is parked for 1 s"), 60) == []
