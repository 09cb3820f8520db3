"""Who is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from llm_actors.catalog import Candidate, Catalog
from llm_actors.orchestrator.strategies.member_seats import TEMPERATURES, diverse, named, varied
from llm_protocol.content import Message
from llm_protocol.requests import ChatRequest, LLMProvider, Parameters, RequestType
from llm_protocol.vendors import VENDORS
from support.attempts import status, world
from support.panels import ask, outcomes, saying

KINDS = {
    "openai-eu": LLMProvider.OPENAI,
    "openai-us": LLMProvider.OPENAI,
    "anthropic": LLMProvider.ANTHROPIC,
    "mine": LLMProvider.OPENAI_COMPATIBLE,
    "yours": LLMProvider.OPENAI_COMPATIBLE,
}
CHAT = ChatRequest(messages=(Message.of("user", "hi"),))


def catalog() -> Catalog:
    made = Catalog()
    for name, kind in KINDS.items():
        made.add(name, VENDORS[kind], frozenset({RequestType.CHAT}), ("m", "n"))
    return made


def candidates(*names: str) -> list[Candidate]:
    return [Candidate(*name.split("/")) for name in names]


def test_the_best_of_different_vendors_are_chosen() -> None:
    ranked = candidates("openai-eu/m", "openai-us/m", "mine/m", "yours/m", "anthropic/m")
    assert diverse(ranked, 3, catalog()) == candidates("openai-eu/m", "mine/m", "yours/m")
    assert diverse(ranked, 4, catalog()) == candidates("openai-eu/m", "mine/m", "yours/m", "anthropic/m")


def test_where_vendors_do_not_suffice_other_providers_and_then_other_models_are() -> None:
    ranked = candidates("openai-eu/m", "openai-eu/n", "openai-us/m")
    assert diverse(ranked, 2, catalog()) == candidates("openai-eu/m", "openai-us/m")
    assert diverse(ranked, 3, catalog()) == ranked
    assert diverse(ranked, 9, catalog()) == ranked


@given(
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from("mn")), unique=True, min_size=1),
    st.integers(1, 16),
)
def test_as_many_as_there_are_and_none_twice(pairs: list[tuple[str, str]], count: int) -> None:
    ranked = [Candidate(*pair) for pair in pairs]
    chosen = diverse(ranked, count, catalog())
    assert len(chosen) == len(set(chosen)) == min(count, len(ranked))
    assert ranked[0] in chosen
    vendors = {catalog().vendor(each) for each in ranked}
    assert len({catalog().vendor(each) for each in chosen}) == min(count, len(vendors))


def test_a_name_given_twice_gets_two_seats() -> None:
    found = named(catalog(), CHAT, None, ["mine/m", "yours/m", "mine/m", "nobody"])
    assert [(seat.name, seat.nth) for seat in found] == [("mine/m", 0), ("yours/m", 0), ("mine/m#2", 1), ("nobody", 0)]
    assert found[3].failure is not None


def test_samples_vary_by_seed_or_temperature_or_as_the_caller_said() -> None:
    plain = Parameters()
    assert varied(plain, 0) is plain
    assert [varied(plain, nth).temperature for nth in range(1, 7)] == [*TEMPERATURES, *TEMPERATURES[:2]]
    assert varied(Parameters(seed=5), 2) == Parameters(seed=7)
    warm, top = Parameters(temperature=0.1), Parameters(top_p=0.1)
    assert (varied(warm, 1), varied(top, 1)) == (warm, top)


async def test_why_members_were_chosen_is_told(autojump_clock: MockClock) -> None:
    async with world(a=[saying("one")], b=[saying("two")], draw=0.0) as w:
        chosen = await ask(w, strategy="panel", members=2, synthesiser="a/m-a")
        given_by_name = await ask(w, strategy="panel", synthesiser="a/m-a")

    assert [each["provider"] for each in chosen.decision["selection"]["candidates"]] == ["a", "b"]
    assert "selection" not in given_by_name.decision


async def test_a_council_refills_its_drafts_and_not_its_rounds(autojump_clock: MockClock) -> None:
    scripts = {"a": [status(401)], "b": [saying("b"), status(401)], "c": [saying("c")], "d": [saying("d")]}
    async with world(**scripts) as w:  # type: ignore[arg-type]
        names = ("a/m-a", "b/m-b")
        how = {"members": names, "candidates": ("c/m-c", "d/m-d"), "refill": True, "synthesiser": "longest"}
        asked = await ask(w, strategy="council", **how)  # type: ignore[arg-type]

        assert set(outcomes(asked)) == {"a/m-a", "b/m-b", "c/m-c"}
        assert w["d"].calls == 0
