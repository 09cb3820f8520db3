"""Which models a name means."""

from __future__ import annotations

from datetime import date

import pytest

from llm_actors.catalog import Candidate, Catalog
from llm_protocol.content import Message
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import ModelNotFoundError, UnsupportedError
from llm_protocol.requests import ChatRequest, EmbeddingRequest, LLMProvider, RequestType
from llm_protocol.vendors import VENDORS

TALK = frozenset({RequestType.CHAT, RequestType.COMPLETION, RequestType.CODE_GENERATION})


@pytest.fixture
def catalog() -> Catalog:
    made = Catalog(lambda: date(2026, 6, 1))
    made.add("primary", VENDORS[LLMProvider.OPENAI_COMPATIBLE], TALK, ("m1", "shared"))
    made.add("backup", VENDORS[LLMProvider.OPENAI_COMPATIBLE], TALK | {RequestType.EMBEDDING}, ("shared", "m2"))
    made.add("asked", VENDORS[LLMProvider.OPENAI], TALK)
    return made


def chat(model: str, provider: str | None = None) -> ChatRequest:
    return ChatRequest(model=model, provider=provider, messages=(Message.of("user", "hi"),))


def test_provider_and_model_are_split_at_the_first_slash(catalog: Catalog) -> None:
    assert catalog.resolve(chat("primary/org/model")) == [Candidate("primary", "org/model")]


def test_a_model_that_is_not_on_the_list_is_passed_through(catalog: Catalog) -> None:
    assert catalog.resolve(chat("primary/brand-new")) == [Candidate("primary", "brand-new")]


def test_the_local_model_answers_to_its_own_name_only(catalog: Catalog) -> None:
    """Its server does not look at the name: ``local/gpt-5`` would be answered, by a model of 135 M parameters."""
    catalog.add("local", VENDORS[LLMProvider.LOCAL], TALK, ("smollm2",))
    assert catalog.resolve(chat("local/smollm2")) == [Candidate("local", "smollm2")]
    for asked in (chat("local/gpt-5"), chat("gpt-5", provider="local")):
        with pytest.raises(ModelNotFoundError, match=r"there is no model '(local/)?gpt-5'"):
            catalog.resolve(asked)


def test_auto_without_any_model_names_who_could_not_be_asked() -> None:
    catalog = Catalog()
    catalog.add("unreachable", VENDORS[LLMProvider.OPENAI], TALK)
    with pytest.raises(
        ModelNotFoundError,
        match="the models of these providers could not be listed: unreachable",
    ):
        catalog.resolve(chat("auto"))


def test_a_bare_name_means_everyone_who_lists_it_in_the_order_of_the_configuration(catalog: Catalog) -> None:
    assert catalog.resolve(chat("shared")) == [Candidate("primary", "shared"), Candidate("backup", "shared")]


def test_a_name_with_a_slash_can_be_a_bare_name(catalog: Catalog) -> None:
    catalog.update("asked", [ModelInfo(id="org/model")])
    assert catalog.resolve(chat("org/model")) == [Candidate("asked", "org/model")]


def test_auto_means_each_able_providers_default(catalog: Catalog) -> None:
    catalog.update("asked", [ModelInfo(id="babbage-002"), ModelInfo(id="gpt-5-codex"), ModelInfo(id="gpt-5")])
    assert catalog.resolve(chat("auto")) == [
        Candidate("primary", "m1"),
        Candidate("backup", "shared"),
        Candidate("asked", "gpt-5"),
    ]


def test_a_provider_hint_narrows_the_choice(catalog: Catalog) -> None:
    assert catalog.resolve(chat("shared", provider="backup")) == [Candidate("backup", "shared")]
    assert catalog.resolve(chat("unlisted", provider="backup")) == [Candidate("backup", "unlisted")]


def test_an_unknown_name_is_an_error_that_shows_what_is_known(catalog: Catalog) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model 'nope'; known models: primary/m1, primary/shared"):
        catalog.resolve(chat("nope"))


@pytest.mark.parametrize("model", ["../../etc/passwd", "x" * 10_000, "a\x00b", "http://evil.test/", "ⓜ"])
def test_a_hostile_name_is_just_unknown_and_never_quoted_whole(catalog: Catalog, model: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        catalog.resolve(chat(model))
    assert len(caught.value.failure.message) < 400


def test_a_request_its_provider_cannot_do_is_refused_naming_those_that_can(catalog: Catalog) -> None:
    with pytest.raises(
        UnsupportedError, match=r"primary .* does not support embedding requests; these providers do: backup"
    ):
        catalog.resolve(EmbeddingRequest(model="primary/m1", inputs=("a",)))


def test_without_providers_it_says_so() -> None:
    with pytest.raises(ModelNotFoundError, match="no provider is configured: set a key"):
        Catalog().resolve(chat("auto"))


def test_auto_means_one_model_where_vectors_are_asked_for() -> None:
    """Those of two models cannot be compared: a request now and then by another one would spoil an index."""
    catalog = Catalog()
    for name, *models in (("a", "e1"), ("b", "e2"), ("c", "e1", "e2")):
        catalog.add(name, VENDORS[LLMProvider.OPENAI_COMPATIBLE], frozenset({RequestType.EMBEDDING}), models)
    request = EmbeddingRequest(inputs=("x",))
    assert catalog.resolve(request) == [Candidate("a", "e1"), Candidate("c", "e1")]


def test_auto_means_the_local_model_only_where_there_is_no_other(catalog: Catalog) -> None:
    catalog.add("local", VENDORS[LLMProvider.LOCAL], TALK, ("smollm2",))
    assert "local" not in {candidate.provider for candidate in catalog.resolve(chat("auto"))}
    alone = Catalog()
    alone.add("local", VENDORS[LLMProvider.LOCAL], TALK, ("smollm2",))
    assert alone.resolve(chat("auto")) == [Candidate("local", "smollm2")]
