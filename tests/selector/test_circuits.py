"""Whose circuit it is: what one model's trouble does to the models beside it, and what it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_actors.catalog import Candidate
from llm_actors.selector import Circuits, CircuitState, Selector, scope_of
from llm_actors.selector.breaker import LATELY_SECONDS
from llm_actors.selector.circuits import MAX_CIRCUITS, TOGETHER_SECONDS
from llm_actors.selector.performance import Observed
from llm_protocol.failures import RULES, Failure, FailureKind, Scope
from llm_protocol.requests import RequestType
from support.selecting import cost_of

A, B, C = (Candidate("p", model) for model in "abc")
OTHER = Candidate("q", "a")
DOWN = FailureKind.SERVER_ERROR


def seen(
    candidate: Candidate,
    at: float,
    kind: FailureKind | None = None,
    *,
    unsent: bool = False,
    retry_after: float | None = None,
    status: int | None = None,
    account_wide: bool | None = None,
    began: float | None = None,
) -> Observed:
    failure = None
    if kind is not None:
        failure = Failure(
            kind=kind, message="", retry_after=retry_after, upstream_status=status, account_wide=account_wide
        )
    began = at if began is None else began
    return Observed(
        candidate=candidate,
        request_type=RequestType.CHAT,
        began=began,
        ended=at,
        stream=False,
        failure=failure,
        unsent=unsent,
    )


def after(*observed: Observed) -> Circuits:
    circuits = Circuits()
    for each in observed:
        circuits.observe(each, 0.5)
    return circuits


def ready(circuits: Circuits, now: float, *, untried: bool = False) -> list[str]:
    return [each.model for each in (A, B, C) if circuits.unavailable(each, now, untried=untried) is None]


def test_an_ill_model_leaves_the_models_beside_it_alone() -> None:
    for kind in (DOWN, FailureKind.OVERLOADED, FailureKind.TIMEOUT_FIRST_TOKEN, FailureKind.TIMEOUT_TOTAL):
        assert ready(after(*[seen(A, 0.0, kind)] * 50), 0.5) == ["b", "c"]


@pytest.mark.parametrize("kind", [FailureKind.NETWORK, FailureKind.TIMEOUT_CONNECT, FailureKind.TLS])
def test_a_provider_that_cannot_be_reached_is_closed_to_all_models(kind: FailureKind) -> None:
    circuits = after(*[seen(A, 0.0, kind, unsent=True)] * 5)
    assert ready(circuits, 0.5) == []
    assert circuits.unavailable(OTHER, 0.5) is None
    assert circuits.deployment(A, 0.5).state is CircuitState.CLOSED


def test_a_connection_that_broke_is_held_against_the_model_alone() -> None:
    """There was one: a worker that crashes on this model breaks it, too."""
    assert ready(after(*[seen(A, 0.0, FailureKind.NETWORK)] * 5), 0.5) == ["b", "c"]


@pytest.mark.parametrize("kind", [FailureKind.PROTOCOL, FailureKind.TRUNCATED, FailureKind.INVALID_TOOL_CALL])
def test_malformed_answers_open_nothing(kind: FailureKind) -> None:
    assert ready(after(*[seen(A, 0.0, kind)] * 500), 0.0) == ["a", "b", "c"]


@pytest.mark.parametrize(("apart", "together"), [(TOGETHER_SECONDS, True), (TOGETHER_SECONDS + 1, False)])
def test_two_models_that_open_one_after_the_other_open_their_provider(apart: float, together: bool) -> None:
    circuits = after(*[seen(A, 0.0, DOWN)] * 5)
    for _ in range(4):
        assert circuits.observe(seen(B, apart, DOWN), 0.5) == []
    transitions = circuits.observe(seen(B, apart, FailureKind.TIMEOUT_IDLE), 0.5)
    assert (circuits.unavailable(C, apart + 0.5) is not None) == together
    evidence = {str(each.of): each.breaker.evidence for each in transitions}
    assert evidence["p/b"] == "5 failures in a row, the last: timeout_idle"
    assert evidence.get("p") == ("the circuits of p/a and p/b opened within 30 s" if together else None)


def test_a_provider_opened_by_two_of_its_models_is_closed_again_by_the_third() -> None:
    """And two that stay ill do not open it a second time."""
    circuits = after(*[seen(A, 0.0, DOWN)] * 5, *[seen(B, 0.0, DOWN)] * 5)
    assert ready(circuits, 0.5) == []
    now = 0.5 + max(0.0, circuits.provider("p", 0.5).free_in(0.5))
    circuits.admit(C, now)
    assert ready(circuits, now) == [], "one probe at a time"
    [transition] = circuits.observe(seen(C, now + 0.1, began=now), 0.5)
    assert (transition.of, transition.breaker.evidence) == ("p", "the probe succeeded")
    for _ in range(10):
        for each in (A, B):
            now += 20.0
            circuits.admit(each, now)
            circuits.observe(seen(each, now, DOWN), 0.5)
            assert circuits.unavailable(C, now) is None


def test_a_failed_probe_of_one_model_does_not_keep_a_provider_closed_to_the_others() -> None:
    circuits = after(*[seen(A, 0.0, DOWN)] * 5, *[seen(B, 0.0, DOWN)] * 5)
    now = 1.5
    circuits.admit(A, now)
    circuits.observe(seen(A, now, DOWN), 0.5)
    assert ready(circuits, now) == ["b", "c"], "its slot is given back"


def test_every_transition_has_its_evidence() -> None:
    circuits, told = Circuits(), []
    for at in range(40):
        kind = DOWN if at % 2 else None
        told += circuits.observe(seen(A, at / 100, kind), 0.5)
    [opened] = told
    assert opened.breaker.evidence.endswith("% of the latest attempts failed, the last: server_error")
    half = circuits.deployment(A, opened.breaker.until)
    assert half.evidence.startswith("the pause is over; it opened after: ")
    circuits.admit(A, opened.breaker.until)
    [again] = circuits.observe(seen(A, opened.breaker.until, FailureKind.OVERLOADED), 0.5)
    assert again.breaker.evidence == "the probe failed, the last: overloaded"


# Pauses


def test_a_bad_key_or_an_empty_account_pauses_the_provider_and_a_forbidden_model_only_itself() -> None:
    assert ready(after(seen(A, 0.0, FailureKind.AUTH, status=401)), 1.0) == []
    assert ready(after(seen(A, 0.0, FailureKind.QUOTA)), 1.0) == []
    assert ready(after(seen(A, 0.0, FailureKind.AUTH, status=403)), 1.0) == ["b", "c"]


def test_a_rate_limit_is_the_models_unless_the_vendor_says_it_is_the_accounts() -> None:
    limited = FailureKind.RATE_LIMITED
    assert ready(after(seen(A, 0.0, limited, retry_after=20.0)), 19.0) == ["b", "c"]
    assert ready(after(seen(A, 0.0, limited, retry_after=20.0, account_wide=True)), 19.0) == []
    assert ready(after(seen(A, 0.0, FailureKind.QUOTA, account_wide=False)), 1.0) == ["b", "c"]


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.QUOTA])
def test_a_pause_of_our_own_does_not_hold_for_who_has_nobody_else_to_ask(kind: FailureKind) -> None:
    assert ready(after(seen(A, 0.0, kind)), 1.0, untried=True) == ["a", "b", "c"]
    assert ready(after(seen(A, 0.0, kind, retry_after=9.0)), 1.0, untried=True) == [], "the vendor's word holds"
    assert ready(after(*[seen(A, 0.0, DOWN)] * 5), 0.5, untried=True) == ["b", "c"], "so does an open circuit"


def test_a_guess_from_another_model_does_not_hold_when_nobody_else_may_be_asked() -> None:
    made = Selector(cost_of)
    made.observe(seen(A, 0.0, FailureKind.AUTH), 0.5)
    assert made.rank([A, B], RequestType.CHAT, now=1.0, draw=0.9).candidates == [B, A]
    assert made.admit(B, 1.0, others=[A], called=True) is None
    assert made.admit(B, 1.0, others=[OTHER]) is not None, "another may be asked"
    assert made.admit(A, 1.0, others=[B], called=True) is not None, "it has had its turn"
    assert made.admit(A, 1.0, others=[B]) is None


def test_a_success_ends_a_pause_of_our_own_and_not_the_vendors() -> None:
    assert ready(after(seen(A, 0.0, FailureKind.AUTH), seen(A, 1.0)), 1.0) == ["a", "b", "c"]
    assert ready(after(seen(A, 0.0, FailureKind.AUTH), seen(B, 1.0)), 1.0) == ["b", "c"], "it was a alone"
    assert ready(after(seen(A, 0.0, FailureKind.AUTH), seen(B, 1.0, began=-1.0)), 1.0) == [], "it began before"
    assert ready(after(seen(A, 0.0, FailureKind.QUOTA, retry_after=9.0), seen(B, 1.0)), 1.0) == []


def test_a_later_shorter_pause_does_not_end_a_longer_one() -> None:
    limited = FailureKind.RATE_LIMITED
    circuits = after(seen(A, 0.0, limited, retry_after=20.0), seen(A, 1.0, limited, retry_after=2.0))
    barred = circuits.unavailable(A, 5.0)
    assert barred is not None
    assert (barred.seconds, barred.kind) == (15.0, limited)


# Bounds


def test_invented_names_of_models_are_forgotten_before_an_open_circuit() -> None:
    circuits = after(*[seen(A, 0.0, DOWN)] * 5)
    for number in range(3 * MAX_CIRCUITS):
        invented = Candidate("p", f"made-up-{number}")
        circuits.observe(seen(invented, 0.1, FailureKind.MODEL_NOT_FOUND), 0.5)
        circuits.observe(seen(invented, 0.1, FailureKind.RATE_LIMITED, retry_after=60.0), 0.5)
    assert len(circuits._deployments) == len(circuits._pauses) == MAX_CIRCUITS
    assert circuits.deployment(A, 0.5).state is CircuitState.OPEN


@given(
    st.lists(
        st.tuples(
            st.sampled_from((A, B, C)),
            st.sampled_from([None, *FailureKind]),
            st.floats(0.0, 5.0),
            st.booleans(),
            st.booleans(),
        ),
        max_size=150,
    )
)
def test_whatever_happens_every_model_is_asked_again_and_only_real_evidence_closes_anything(
    steps: list[tuple[Candidate, FailureKind | None, float, bool, bool]],
) -> None:
    circuits, now = Circuits(), 0.0
    for candidate, kind, wait, unsent, lost in steps:
        now += wait
        if circuits.unavailable(candidate, now) is not None:
            continue
        circuits.admit(candidate, now)
        if not lost:
            for transition in circuits.observe(seen(candidate, now, kind, unsent=unsent), 0.5):
                if transition.breaker.state is CircuitState.OPEN:
                    assert kind is not None
                    assert RULES[kind].breaks
                assert transition.breaker.evidence
    for candidate in (A, B, C):
        assert circuits.unavailable(candidate, now + 60.0) is None


def test_whose_evidence_a_failure_is() -> None:
    wide = {kind for kind in FailureKind if scope_of(Failure(kind=kind, message=""), unsent=True) is Scope.PROVIDER}
    assert wide == {
        FailureKind.NETWORK,
        FailureKind.TLS,
        FailureKind.TIMEOUT_CONNECT,
        FailureKind.AUTH,
        FailureKind.QUOTA,
        FailureKind.PARKED,
    }


STREAM = "the attempt of a stream"


def test_failures_among_streams_that_flow_open_nothing() -> None:
    """Long streams succeed late: their flowing is told from their first content on."""
    circuits = Circuits()
    for stream in range(20):
        circuits.stream_began(A, stream, 0.0)
    for at in range(9):
        circuits.observe(seen(A, float(at), DOWN), 0.5)
    assert ready(circuits, 9.0) == ["a", "b", "c"]


def test_as_many_failures_as_streams_that_flow_open_it() -> None:
    circuits = Circuits()
    for stream in range(6):
        circuits.stream_began(A, stream, 0.0)
    for _ in range(5):
        circuits.observe(seen(A, 1.0, DOWN), 0.5)
    assert ready(circuits, 1.0) == ["a", "b", "c"]
    circuits.observe(seen(A, 1.0, DOWN), 0.5)
    assert ready(circuits, 1.5) == ["b", "c"]


@pytest.mark.parametrize("how", ["stopped", "began long ago"])
def test_streams_that_do_not_flow_lately_prove_nothing(how: str) -> None:
    circuits = Circuits()
    for stream in range(20):
        circuits.stream_began(A, stream, 0.0)
    if how == "stopped":
        for stream in range(20):
            circuits.stream_ended(A, stream)
    at = 1.0 if how == "stopped" else LATELY_SECONDS + 1
    for _ in range(5):
        circuits.observe(seen(A, at, DOWN), 0.5)
    assert ready(circuits, at) == ["b", "c"]


def test_streams_of_a_model_prove_that_its_provider_can_be_reached() -> None:
    circuits = Circuits()
    for stream in range(20):
        circuits.stream_began(A, stream, 0.0)
    for _ in range(9):
        circuits.observe(seen(B, 1.0, FailureKind.TIMEOUT_CONNECT, unsent=True), 0.5)
    assert ready(circuits, 1.0) == ["a", "b", "c"]


def test_a_probe_that_flows_closes_the_circuit() -> None:
    """Its end may be minutes away."""
    circuits = after(*[seen(A, 0.0, DOWN)] * 5)
    circuits.admit(A, 20.0)
    assert ready(circuits, 21.0) == ["b", "c"], "one request is probing it"
    circuits.stream_began(A, STREAM, 21.0)
    (closed,) = circuits.confirm_recovery(A, began=20.0, now=21.0)
    assert closed.breaker.state is CircuitState.CLOSED
    assert ready(circuits, 21.0) == ["a", "b", "c"]
    circuits.observe(seen(A, 22.0, DOWN, began=20.0), 0.5)
    assert ready(circuits, 22.0) == ["a", "b", "c"]


def test_a_stream_of_before_the_outage_proves_nothing_of_after_it() -> None:
    circuits = after(*[seen(A, 5.0, DOWN)] * 5)
    circuits.admit(A, 20.0)
    assert circuits.confirm_recovery(A, began=1.0, now=21.0) == []
    assert ready(circuits, 21.0) == ["b", "c"]


def test_nothing_is_kept_of_streams_that_stopped() -> None:
    circuits = Circuits()
    circuits.stream_began(A, STREAM, 0.0)
    circuits.stream_ended(A, STREAM)
    circuits.stream_ended(A, STREAM)
    circuits.stream_ended(B, STREAM)
    assert circuits.streaming(A, 0.0) == 0
