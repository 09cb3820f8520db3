"""What a caller may not use does not exist for it."""

from __future__ import annotations

from datetime import date

import pytest

from llm_actors.catalog import Allowed, Candidate, Catalog
from llm_actors.orchestrator import Router
from llm_protocol.content import Message
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import LLMClientError, ModelNotFoundError, UnsupportedError
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest, ChatRequest, EmbeddingRequest, LLMProvider, RequestType
from llm_protocol.vendors import VENDORS

TALK = frozenset({RequestType.CHAT})
PROVIDERS = ("cheap", "dear", "vendor")
ROUTES = {
    "careful": Policy(candidates=("dear/big", "cheap/small")),
    "judged": Policy(strategy="best_of", members=("cheap/small", "cheap/shared"), judge="dear/big"),
    "open": Policy(strategy="panel", members=2),
}


@pytest.fixture
def catalog() -> Catalog:
    made = Catalog(lambda: date(2026, 6, 1))
    made.add("cheap", VENDORS[LLMProvider.OPENAI_COMPATIBLE], TALK, ("small", "shared", "dear/big"))
    made.add("dear", VENDORS[LLMProvider.OPENAI_COMPATIBLE], TALK | {RequestType.EMBEDDING}, ("big", "shared"))
    made.add("vendor", VENDORS[LLMProvider.OPENAI], TALK)
    made.update("vendor", [ModelInfo(id="gpt-5-mini"), ModelInfo(id="gpt-5"), ModelInfo(id="old")])
    return made


def chat(model: str, policy: Policy | None = None, provider: str | None = None) -> ChatRequest:
    messages = (Message.of("user", "hi"),)
    return ChatRequest(model=model, messages=messages, caller="me", policy=policy, provider=provider)


def resolved(catalog: Catalog, names: list[str], request: ChatRequest, routes: bool = True) -> list[str]:
    """Whom the router finds for a caller with that list; nobody: an empty list."""
    known = ROUTES if routes else {}
    router = Router(catalog, known, allowed={"me": Allowed(names, PROVIDERS, known)})
    try:
        return [str(each) for each in router.route(request).candidates]
    except ModelNotFoundError:
        return []


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (["cheap/small"], "cheap/small", ["cheap/small"]),
        (["cheap/small"], "small", ["cheap/small"]),
        (["cheap/small"], "cheap/shared", []),
        (["cheap/small"], "dear/big", []),
        (["dear/*"], "dear/big", ["dear/big"]),
        (["dear/*"], "dear/not-listed-yet", ["dear/not-listed-yet"]),
        (["dear/*"], "shared", ["dear/shared"]),
        (["dear/*"], "cheap/small", []),
        (["shared"], "shared", ["cheap/shared", "dear/shared"]),
        (["shared"], "dear/shared", ["dear/shared"]),
        (["shared"], "dear/big", []),
        (["cheap/*"], "auto", ["cheap/small"]),
        (["shared", "vendor/gpt-5"], "auto", ["cheap/shared", "dear/shared", "vendor/gpt-5"]),
        (["vendor/old"], "auto", ["vendor/old"]),
        (["vendor/old"], "", ["vendor/old"]),
        (["nowhere"], "auto", []),
    ],
)
def test_only_what_is_listed_is_found(catalog: Catalog, names: list[str], asked: str, found: list[str]) -> None:
    assert resolved(catalog, names, chat(asked)) == found


def test_a_name_of_a_known_provider_is_that_providers_model_and_no_others(catalog: Catalog) -> None:
    """An aggregator may list ``dear/big`` as the name of a model of its own."""
    assert resolved(catalog, ["dear/big"], chat("dear/big", provider="cheap")) == []
    assert resolved(catalog, ["cheap/dear/big"], chat("dear/big", provider="cheap")) == ["cheap/dear/big"]


def test_a_hint_opens_nothing(catalog: Catalog) -> None:
    assert resolved(catalog, ["cheap/small"], chat("big", provider="dear")) == []
    assert resolved(catalog, ["cheap/small"], chat("auto", provider="dear")) == []


def test_a_route_is_allowed_by_its_name_and_lets_its_models_be_used_in_it(catalog: Catalog) -> None:
    assert resolved(catalog, ["careful"], chat("careful")) == ["dear/big", "cheap/small"]
    narrowed = Policy(candidates=("cheap/small",))
    assert resolved(catalog, ["careful"], chat("careful", narrowed)) == ["cheap/small"]
    assert resolved(catalog, ["careful"], chat("dear/big")) == []
    widened = Policy(candidates=("vendor/gpt-5",))
    assert resolved(catalog, ["careful"], chat("careful", widened)) == []


def test_a_route_that_is_not_listed_is_none_though_its_models_are(catalog: Catalog) -> None:
    listed = ["dear/*", "cheap/*"]
    assert resolved(catalog, listed, chat("careful")) == []
    catalog.update("cheap", [ModelInfo(id="careful")])
    assert resolved(catalog, listed, chat("careful")) == ["cheap/careful"], "as if the route were not there"


def test_where_a_route_leaves_the_choice_it_is_among_what_is_allowed(catalog: Catalog) -> None:
    assert resolved(catalog, ["open", "cheap/*", "vendor/gpt-5"], chat("open")) == ["cheap/small", "vendor/gpt-5"]
    assert resolved(catalog, ["open"], chat("open")) == []


def test_candidates_of_a_request_are_found_only_if_allowed(catalog: Catalog) -> None:
    named = Policy(candidates=("dear/big", "cheap/small", "shared"))
    assert resolved(catalog, ["cheap/*"], chat("auto", named)) == ["cheap/small", "cheap/shared"]
    assert resolved(catalog, ["vendor/*"], chat("auto", named)) == []


def test_the_judge_of_a_route_may_be_used_in_it(catalog: Catalog) -> None:
    router = Router(catalog, ROUTES, allowed={"me": Allowed(["judged"], PROVIDERS, ROUTES)})
    allowed = router.route(chat("judged")).allowed
    assert allowed is not None
    assert allowed.permits("dear", "big")
    assert not allowed.permits("dear", "shared")


@pytest.mark.parametrize("asked", ["dear/big", "big", "vendor/gpt-5", "no-such", "no-such/model"])
def test_what_is_not_allowed_is_answered_as_what_does_not_exist(catalog: Catalog, asked: str) -> None:
    """Word for word as in a runtime that has nothing else."""
    only = Catalog()
    only.add("cheap", VENDORS[LLMProvider.OPENAI_COMPATIBLE], TALK, ("small",))
    router = Router(catalog, {}, allowed={"me": Allowed(["cheap/small"], PROVIDERS)})
    with pytest.raises(ModelNotFoundError) as seen:
        router.route(chat(asked))
    with pytest.raises(ModelNotFoundError) as expected:
        only.resolve(chat(asked))
    assert seen.value.failure == expected.value.failure


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (EmbeddingRequest(model="cheap/small", inputs=("a",), caller="me"), UnsupportedError),
        (EmbeddingRequest(model="auto", inputs=("a",), caller="me"), ModelNotFoundError),
        (chat("x"), ModelNotFoundError),
    ],
)
def test_no_error_names_what_is_not_allowed(
    catalog: Catalog, request_: AnyRequest, error: type[LLMClientError]
) -> None:
    catalog.add("unheard-of", VENDORS[LLMProvider.OPENAI], TALK)
    router = Router(catalog, ROUTES, allowed={"me": Allowed(["cheap/small"], PROVIDERS, ROUTES)})
    with pytest.raises(error) as caught:
        router.route(request_)
    for hidden in ("dear", "vendor", "unheard-of", "careful", "shared"):
        assert hidden not in caught.value.failure.message


def test_the_list_has_only_what_is_allowed_and_others_see_all(catalog: Catalog) -> None:
    router = Router(catalog, ROUTES, allowed={"me": Allowed(["vendor/*", "shared", "careful"], PROVIDERS, ROUTES)})
    mine = ["cheap/shared", "dear/shared", "vendor/gpt-5-mini", "vendor/gpt-5", "vendor/old"]
    assert [each.id for each in router.infos("me")] == mine
    assert [each.id for each in router.infos("other")] == [each.id for each in catalog.infos()]
    assert router.route(ChatRequest(model="dear/big", messages=(), caller="other")).candidates == [
        Candidate("dear", "big")
    ]


@pytest.mark.parametrize(("names", "hint"), [(["careful", "cheap/*"], '; did you mean "careful"?'), (["cheap/*"], "")])
def test_a_misspelt_route_is_suggested_to_those_who_may_use_it(catalog: Catalog, names: list[str], hint: str) -> None:
    router = Router(catalog, ROUTES, allowed={"me": Allowed(names, PROVIDERS, ROUTES)})
    with pytest.raises(ModelNotFoundError) as caught:
        router.route(chat("carefull"))
    assert str(caught.value).partition(" known models")[0] == f"there is no model 'carefull'{hint or ';'}"
