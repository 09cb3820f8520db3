"""Whether a route has somebody to answer, by what is known of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_actors.catalog import Catalog
from llm_actors.orchestrator import Router
from llm_protocol.dialect import ModelInfo
from llm_protocol.policy import Policy
from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.vendors import VENDORS
from llm_runtime.probes import CheckStatus
from llm_runtime.probes.routes import Known, route

CHAT = frozenset((RequestType.CHAT,))
LISTS = {"a": ["m-a", "both"], "b": ["m-b", "both"]}


def told(
    policy: Policy,
    lists: Mapping[str, Sequence[str]] = LISTS,
    *,
    providers: Sequence[str] = ("a", "b"),
    failed: Sequence[str] = (),
    offline: bool = False,
) -> tuple[CheckStatus, str]:
    catalog = Catalog()
    for name in providers:
        catalog.add(name, VENDORS[LLMProvider.OPENAI], CHAT)
        if name in lists:
            catalog.update(name, [ModelInfo(id=model) for model in lists[name]])
    check = route("r", policy, Known(catalog, Router(catalog, {"r": policy}), lists, failed, offline))
    assert (check.what, check.name) == ("route", "r")
    return check.status, check.detail


def test_a_route_whose_models_are_listed_is_fine() -> None:
    policy = Policy(candidates=("a/m-a", "m-b", "both"), judge="b/both", synthesiser="longest")
    assert told(policy) == (CheckStatus.OK, "4 models")


def test_a_route_without_models_is_fine_when_the_selector_has_somebody() -> None:
    assert told(Policy(strategy="panel", members=2)) == (CheckStatus.OK, "any model")
    status, detail = told(Policy(), {"a": [], "b": []})
    assert status is CheckStatus.FAILED
    assert "no configured provider offers a model" in detail


def test_a_model_that_is_not_on_its_providers_list_is_doubtful() -> None:
    assert told(Policy(candidates=("a/m-x", "b/m-b"))) == (
        CheckStatus.WARNING,
        'a/m-x: not in the list of its provider; did you mean "m-a"?',
    )


def test_a_model_that_nobody_has_is_a_warning_while_another_can_answer() -> None:
    assert told(Policy(candidates=("nobody", "b/m-b"))) == (
        CheckStatus.WARNING,
        "candidates: nobody: no enabled provider has this model",
    )
    assert told(Policy(members=("nobody", "gone/m")))[0] is CheckStatus.FAILED


def test_a_judge_or_synthesiser_answers_nobody_by_itself() -> None:
    assert told(Policy(candidates=("a/m-a",), judge="nobody"))[0] is CheckStatus.WARNING
    assert told(Policy(candidates=("nobody",), synthesiser="a/m-a"))[0] is CheckStatus.FAILED
    assert told(Policy(judge="nobody"))[0] is CheckStatus.WARNING


def test_a_route_fails_when_all_of_its_providers_did() -> None:
    policy = Policy(candidates=("a/m-a", "b/m-b"))
    assert told(policy, failed=["a"]) == (CheckStatus.WARNING, "a/m-a: its provider failed")
    assert told(policy, failed=["a", "b"])[0] is CheckStatus.FAILED
    assert told(Policy(candidates=("both",)), failed=["a"])[0] is CheckStatus.OK


def test_what_a_silent_vendor_might_have_cannot_be_told() -> None:
    """When nobody was asked that is no fault of anybody's."""
    policy, lists = Policy(candidates=("elsewhere",)), {"a": ["m-a"]}
    detail = "candidates: elsewhere: unknown without the model lists of b"
    assert told(policy, lists) == (CheckStatus.WARNING, detail)
    assert told(policy, lists, offline=True) == (CheckStatus.OK, detail)
    assert told(Policy(), {}, offline=True)[0] is CheckStatus.OK
