"""Models end: `auto` chooses what lives and can do the request, and what ends soon is warned of."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
import trio.testing

from llm_actors.catalog import Candidate, Catalog
from llm_protocol.codec.chat_adapter import offered
from llm_protocol.content import Audio, Document, Image, Message, Part, ResponseFormat, Text, Tool, ToolChoice
from llm_protocol.dialect import ModelInfo
from llm_protocol.errors import ModelNotFoundError, UnsupportedError
from llm_protocol.lifecycle import ending, is_gone
from llm_protocol.model_facts import Capabilities
from llm_protocol.model_rules import ModelRules, refuse_incapable
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    LLMProvider,
    Parameters,
    RequestType,
)
from llm_protocol.secret import Secret
from llm_protocol.vendors import VENDORS
from llm_runtime import open_runtime
from llm_runtime.config import Config, Provider
from support.model_lists import MODEL_LISTS

NOVEMBER, DECEMBER, JANUARY = date(2026, 11, 29), date(2026, 12, 15), date(2027, 1, 15)
DAYS = (NOVEMBER, DECEMBER, JANUARY)

HELLO = (Message.of("user", "hi"),)
TOOLS = (Tool(name="f", parameters={"type": "object"}),)


def showing(part: Part) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=(Text("hi"), part)),))


REQUESTS: dict[str, AnyRequest] = {
    "chat": ChatRequest(messages=HELLO),
    "reasoning": ChatRequest(messages=HELLO, parameters=Parameters(reasoning_effort="high")),
    "schema": ChatRequest(
        messages=HELLO, response_format=ResponseFormat(type="json_schema", schema={"type": "object"})
    ),
    "vision": showing(Image(data=b"\x89PNG", media_type="image/png")),
    "documents": showing(Document(data=b"%PDF-", media_type="application/pdf")),
    "audio": showing(Audio(data=b"RIFF", media_type="audio/wav")),
    "tools": ChatRequest(messages=HELLO, tools=TOOLS),
    "tools and reasoning": ChatRequest(messages=HELLO, tools=TOOLS, parameters=Parameters(reasoning_effort="high")),
    "forced tools": ChatRequest(messages=HELLO, tools=TOOLS, tool_choice=ToolChoice("required")),
    "completion": CompletionRequest(prompt="x"),
    "code": CodeRequest(instruction="x"),
    "embedding": EmbeddingRequest(inputs=("x",)),
    "image": ImageRequest(prompt="x"),
}
TALKS = ("chat", "reasoning", "schema", "tools", "tools and reasoning", "completion", "code")
SHOWS = ("vision", "documents")

CHOSEN: dict[LLMProvider, dict[str, str]] = {
    LLMProvider.OPENAI: dict.fromkeys((*TALKS, *SHOWS, "forced tools"), "gpt-6-luna")
    | {
        "tools and reasoning": "gpt-5.2",
        "audio": "gpt-audio-2",
        "embedding": "text-embedding-3-small",
        "image": "gpt-image-2.6-flare",
    },
    LLMProvider.ANTHROPIC: dict.fromkeys((*TALKS, *SHOWS), "claude-sonnet-5-5") | {"forced tools": "claude-sonnet-5"},
    LLMProvider.GEMINI: dict.fromkeys((*TALKS, *SHOWS, "audio"), "gemini-3.8-flash")
    | {"embedding": "gemini-embedding-001", "image": "gemini-3.1-flash-image"},
    LLMProvider.COHERE: dict.fromkeys(TALKS, "command-a-03-2025")
    | dict.fromkeys(("reasoning", "tools and reasoning"), "command-a-reasoning-08-2025")
    | {"vision": "command-a-vision-07-2025", "embedding": "embed-v4.0"},
    LLMProvider.CEREBRAS: dict.fromkeys(TALKS, "gpt-oss-120b") | {"vision": "gemma-4-31b"},
}
"""What is the same on all of `DAYS`, since none of it ends by then."""

NOBODY = {
    LLMProvider.ANTHROPIC: ("audio",),
    LLMProvider.COHERE: ("documents", "audio"),
    LLMProvider.CEREBRAS: ("documents", "audio"),
}
"""What no model of a vendor takes."""


def infos(kind: LLMProvider) -> tuple[ModelInfo, ...]:
    return VENDORS[kind].client().decode_models(MODEL_LISTS[kind]).models


def listing(kind: LLMProvider, today: date, *models: ModelInfo) -> Catalog:
    """A catalog with one provider ``p``, which lists ``models``; without them, what its vendor publishes."""
    made = Catalog(lambda: today)
    made.add("p", VENDORS[kind], offered(VENDORS[kind].client().request_types))
    made.update("p", models or infos(kind))
    return made


def auto(catalog: Catalog, what: str = "chat") -> str:
    (only,) = catalog.resolve(REQUESTS[what])
    return only.model


@pytest.mark.parametrize("today", DAYS, ids=str)
@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind, chosen in CHOSEN.items() for what in chosen])
def test_auto_chooses_a_model_that_lives_and_can_do_it(kind: LLMProvider, what: str, today: date) -> None:
    chosen = auto(listing(kind, today), what)
    assert chosen == CHOSEN[kind][what]
    (info,) = (each for each in infos(kind) if each.id == chosen)
    assert not is_gone(kind, info, today)
    assert ending(kind, info, today) is None


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind, whats in NOBODY.items() for what in whats])
def test_what_no_model_takes_is_refused_by_name_before_anything_is_sent(kind: LLMProvider, what: str) -> None:
    rule = ModelRules(VENDORS[kind].facts_key).of(auto(listing(kind, DECEMBER), what))
    with pytest.raises(UnsupportedError, match=r"messages\[0\]\.content\[1\]: .* does not accept "):
        refuse_incapable(rule, REQUESTS[what])


def test_every_request_type_of_every_vendor_is_chosen_for() -> None:
    assert {kind: {*chosen, *NOBODY.get(kind, ())} >= {*TALKS, *SHOWS, "audio"} for kind, chosen in CHOSEN.items()} == (
        dict.fromkeys(CHOSEN, True)
    )
    for kind, chosen in CHOSEN.items():
        assert {REQUESTS[what].request_type for what in chosen} == offered(VENDORS[kind].client().request_types)


WITHOUT_NEW = ("gpt-audio-2", "gpt-5-mini", "gpt-5", "gpt-4o-mini", "gpt-4.1-mini", "gpt-realtime-2", "whisper-1")


@pytest.mark.parametrize(("today", "chosen"), [(NOVEMBER, "gpt-5-mini"), (DECEMBER, "gpt-4o-mini")])
def test_one_that_ends_soon_is_chosen_only_where_there_is_no_better(today: date, chosen: str) -> None:
    assert auto(listing(LLMProvider.OPENAI, today, *map(_model, WITHOUT_NEW))) == chosen
    assert auto(listing(LLMProvider.OPENAI, today, *map(_model, [*WITHOUT_NEW, "gpt-5.5-pro-x"]))) == "gpt-5.5-pro-x"


def test_one_that_has_ended_is_never_chosen() -> None:
    with pytest.raises(ModelNotFoundError, match="no configured provider offers a model for chat"):
        auto(listing(LLMProvider.OPENAI, JANUARY, *map(_model, WITHOUT_NEW)))
    for kind, name in ((LLMProvider.ANTHROPIC, "claude-sonnet-4-5"), (LLMProvider.GEMINI, "gemini-2.5-flash")):
        assert auto(listing(kind, NOVEMBER, _model(name))) == name
        with pytest.raises(ModelNotFoundError):
            auto(listing(kind, DECEMBER, _model(name)))


def test_what_is_named_is_asked_for_though_it_has_ended() -> None:
    """Its vendor decides, and says what is wrong."""
    catalog = listing(LLMProvider.OPENAI, JANUARY)
    assert catalog.resolve(ChatRequest(model="gpt-5", messages=HELLO)) == [Candidate("p", "gpt-5")]


def test_a_list_that_says_another_day_is_right() -> None:
    moved = ModelInfo(id="gpt-5-mini", shutdown_date=date(2028, 1, 1))
    assert auto(listing(LLMProvider.OPENAI, JANUARY, _model("gpt-5.4-nano"), moved)) == "gpt-5-mini"


def test_snapshots_and_tuned_models_end_with_their_model_and_others_do_not() -> None:
    gone = ("gpt-5-mini-2025-08-07", "ft:gpt-5-mini-2025-08-07:acme::x1", "gpt-5-mini")
    assert [is_gone(LLMProvider.OPENAI, _model(name), DECEMBER) for name in gone] == [True] * 3
    assert not is_gone(LLMProvider.OPENAI, _model("gpt-5-mini-next"), DECEMBER)
    assert not is_gone(LLMProvider.GEMINI, _model("gemini-2.5-flash-lite"), DECEMBER)
    assert not is_gone(LLMProvider.OPENAI_COMPATIBLE, _model("gpt-5-mini"), DECEMBER), "not that vendor's"


def test_of_configured_models_the_first_that_lives_is_the_default() -> None:
    """Who put them in order has chosen; the day itself overrules."""

    def configured(today: date, *models: str) -> str:
        made = Catalog(lambda: today)
        made.add("p", VENDORS[LLMProvider.OPENAI], frozenset(RequestType), models)
        return auto(made)

    models = ("gpt-5", "gpt-4o", "gpt-audio-2", "gpt-6-luna")
    assert [configured(today, *models) for today in DAYS] == ["gpt-5", "gpt-4o", "gpt-6-luna"]
    assert configured(JANUARY, "gpt-audio-2") == "gpt-audio-2", "there is no other"


def test_a_compatible_servers_first_model_for_conversations_is_its_default() -> None:
    models = map(_model, ("whisper-large-v3", "llama-3.3-70b-instruct", "bge-embed-m3", "other"))
    catalog = listing(LLMProvider.OPENAI_COMPATIBLE, NOVEMBER, *models)
    assert auto(catalog) == "llama-3.3-70b-instruct"
    assert auto(catalog, "embedding") == "bge-embed-m3"
    assert auto(listing(LLMProvider.OPENAI_COMPATIBLE, NOVEMBER, _model("our-vision-model"))) == "our-vision-model"


def test_the_choice_changes_at_midnight() -> None:
    today = DECEMBER
    made = Catalog(lambda: today)
    made.add("p", VENDORS[LLMProvider.OPENAI], frozenset(RequestType))
    made.update("p", [_model("gpt-4o-mini"), _model("gpt-4.1-mini")])
    assert auto(made) == "gpt-4o-mini"
    today = JANUARY
    with pytest.raises(ModelNotFoundError):
        auto(made)
    made.update("p", [_model("gpt-6-luna")])
    assert auto(made) == "gpt-6-luna"


def test_what_is_said_of_a_models_end() -> None:
    kind = LLMProvider.OPENAI
    assert ending(kind, _model("gpt-5"), date(2026, 12, 10)) == "shuts down on 2026-12-11, in 1 day"
    assert ending(kind, _model("gpt-5"), date(2026, 12, 11)) == "was shut down on 2026-12-11"
    assert ending(kind, _model("gpt-5.1"), NOVEMBER) is None, "in more than 90 days"
    assert ending(kind, ModelInfo(id="x", lifecycle="deprecated"), NOVEMBER) == "is deprecated"
    assert ending(kind, ModelInfo(id="x", lifecycle="retired"), NOVEMBER) == "is retired"


def test_what_ends_soon_is_told_configured_models_first() -> None:
    made = listing(LLMProvider.OPENAI, DECEMBER, *map(_model, ("gpt-4o", "gpt-5", "gpt-6-luna")))
    made.add("q", VENDORS[LLMProvider.ANTHROPIC], frozenset(RequestType), ("claude-opus-4-5", "claude-sonnet-4-5"))
    assert made.all_ending() == [
        (Candidate("q", "claude-sonnet-4-5"), "was shut down on 2026-11-30"),
        (Candidate("q", "claude-opus-4-5"), "shuts down on 2027-01-22, in 38 days"),
        (Candidate("p", "gpt-4o"), "shuts down on 2027-01-14, in 30 days"),
    ]
    assert made.ending(Candidate("p", "gpt-5")) == "was shut down on 2026-12-11"
    assert made.ending(Candidate("p", "gpt-5-mini")) == "was shut down on 2026-12-11", "which is on no list"
    assert made.ending(Candidate("p", "gpt-6-luna")) is None


# ---------------------------------------------------------------- lists


ENTRIES: dict[LLMProvider, tuple[dict[str, Any], ModelInfo]] = {
    LLMProvider.OPENAI: (
        {"data": [{"id": "a", "shutdown_date": "2027-01-14"}]},
        ModelInfo(id="a", lifecycle="deprecated", shutdown_date=date(2027, 1, 14)),
    ),
    LLMProvider.ANTHROPIC: (
        {
            "data": [
                {
                    "id": "a",
                    "lifecycle": "deprecated",
                    "deprecated_at": "2026-11-23T00:00:00Z",
                    "retires_at": "2027-01-22T00:00:00Z",
                }
            ]
        },
        ModelInfo(
            id="a",
            owned_by="anthropic",
            lifecycle="deprecated",
            deprecated_on=date(2026, 11, 23),
            shutdown_date=date(2027, 1, 22),
        ),
    ),
    LLMProvider.GEMINI: (
        {
            "models": [
                {
                    "name": "models/a",
                    "supportedGenerationMethods": ["embedContent", "countTokens"],
                    "modelStatus": {"modelStage": "LEGACY", "retirementTime": "2027-01-22T08:00:00Z"},
                }
            ]
        },
        ModelInfo(
            id="a",
            owned_by="google",
            lifecycle="deprecated",
            shutdown_date=date(2027, 1, 22),
            request_types=frozenset((RequestType.EMBEDDING,)),
        ),
    ),
    LLMProvider.COHERE: (
        {"models": [{"name": "a", "is_deprecated": True, "endpoints": ["embed", "classify"]}]},
        ModelInfo(id="a", owned_by="cohere", lifecycle="deprecated", request_types=frozenset((RequestType.EMBEDDING,))),
    ),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_lists_say_when_a_model_ends_on_both_sides(kind: LLMProvider) -> None:
    body, info = ENTRIES[kind]
    assert VENDORS[kind].client().decode_models(json.dumps(body).encode()).models == (info,)
    assert VENDORS[kind].client().decode_models(VENDORS[kind].server().encode_models([info])).models == (info,)


@pytest.mark.parametrize("stage", ["DEPRECATED", "RETIRED"])
def test_gemini_says_of_some_stages_that_they_cannot_be_used(stage: str) -> None:
    body = {"models": [{"name": "models/a", "modelStatus": {"modelStage": stage}}]}
    (info,) = VENDORS[LLMProvider.GEMINI].client().decode_models(json.dumps(body).encode()).models
    assert info.lifecycle == "retired"


YEAR_0, YEAR_10_000 = "0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-12:00"


@pytest.mark.parametrize("odd", [5, "soon", "", {}, ["x"], True, YEAR_0, YEAR_10_000])
def test_what_is_no_date_and_no_word_costs_nothing_else(odd: Any) -> None:
    entry = {
        "id": "a",
        "name": "a",
        "shutdown_date": odd,
        "lifecycle": odd,
        "retires_at": odd,
        "modelStatus": odd,
        "supportedGenerationMethods": odd,
        "endpoints": odd,
        "is_deprecated": "yes",
    }
    body = json.dumps({"data": [entry], "models": [entry]}).encode()
    for kind in CHOSEN:
        (info,) = VENDORS[kind].client().decode_models(body).models
        assert (info.id, info.lifecycle, info.shutdown_date) == ("a", "active", None)


@pytest.mark.parametrize("kind", CHOSEN)
def test_a_list_of_names_that_no_row_knows_is_chosen_from_by_what_they_say(kind: LLMProvider) -> None:
    """As the fake provider's is, and that of a server behind a vendor's address; over the wire and back."""
    body = VENDORS[kind].server().encode_models([_model(name) for name in ("fake-image", "fake-embed", "fake-chat")])
    catalog = listing(kind, NOVEMBER, *VENDORS[kind].client().decode_models(body).models)
    told = {what: auto(catalog, what) for what in CHOSEN[kind]}
    assert told == {what: {"embedding": "fake-embed", "image": "fake-image"}.get(what, "fake-chat") for what in told}


def test_our_own_list_has_the_days_that_the_vendors_lacks() -> None:
    (info,) = listing(LLMProvider.GEMINI, NOVEMBER, _model("gemini-2.5-pro")).infos()
    assert (info.id, info.lifecycle, info.shutdown_date) == ("p/gemini-2.5-pro", "deprecated", date(2026, 12, 1))


def test_our_own_list_has_the_sizes_of_configured_models() -> None:
    """Nobody asks the vendor for them, but the table, or the configuration, knows them."""
    catalog = Catalog(lambda: NOVEMBER)
    rules = ModelRules("openai", {"own": Capabilities(context_window=4_096)})
    catalog.add("p", VENDORS[LLMProvider.OPENAI], frozenset({RequestType.CHAT}), ("gpt-4.1", "own", "new"), rules)
    known, own, unknown = catalog.infos()
    assert (known.context_window, known.max_output_tokens) == (1_047_576, 32_768)
    assert (own.context_window, own.max_output_tokens) == (4_096, None)
    assert (unknown.context_window, unknown.max_output_tokens) == (None, None)


# ---------------------------------------------------------------- the log


@pytest.mark.parametrize("models", [("gpt-3.5-turbo", "gpt-6-luna"), ("gpt-6-luna",)], ids=["ended", "lasting"])
async def test_a_start_warns_once_of_what_ends(models: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider(kind=LLMProvider.OPENAI, api_key=Secret("k"), models=models)
    async with open_runtime(Config(providers={"p": provider})):
        await trio.testing.wait_all_tasks_blocked()
    said = [record.getMessage() for record in caplog.records if "will soon be shut down" in record.getMessage()]
    ended = "models that were or will soon be shut down by their vendors: p/gpt-3.5-turbo was shut down on 2026-10-23"
    assert said == ([ended] if "gpt-3.5-turbo" in models else [])


def _model(name: str) -> ModelInfo:
    return ModelInfo(id=name)
