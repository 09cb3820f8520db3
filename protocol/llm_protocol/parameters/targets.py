"""The columns of the table: the targets of requests, and their limits.

The record of a vendor names its target by one of the keys of `TARGETS`. Lengths are in characters. Sources are the
vendors' documentation and SDK types as of 29 November 2026; undocumented limits were seen in vendors' errors.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec


class NameLimit(NamedTuple):
    """The form of a name or id: at most ``length`` characters, or exactly ``length`` if it ``is_exact``. Each character
    matches ``letters``; the first one also matches ``first``, if that is set. Both are the inside of a regular
    expression's character class.
    """

    length: int
    letters: str = "a-zA-Z0-9_-"
    first: str = ""
    is_exact: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """The pattern that an accepted name matches as a whole."""
        first = f"(?=[{self.first}])" if self.first else ""
        least = self.length if self.is_exact else 1
        return re.compile(f"{first}[{self.letters}]{{{least},{self.length}}}")


class FormLimits(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor's limits for the form of a request; ``None``: no limit is known."""

    user: int | None = None
    """The most characters of an end user's id. A longer id is sent as its SHA-256."""
    cache_key: int | None = None
    """The most characters of a prompt cache key. A longer key is sent as its SHA-256."""
    tool_name: NameLimit | None = None
    """The form of tool names. Other names are rewritten, and mapped back in the response."""
    schema_name: NameLimit | None = None
    call_id: NameLimit | None = None
    speaker: NameLimit | None = None
    """The form of the ``name`` of a message."""
    stops: int | None = None
    """The most stop sequences; if there are more, the runtime ends the response itself."""
    blank_stops: bool = True
    """Whether a stop sequence may consist of white space only."""
    tools: int | None = None
    temperature: tuple[float, float] | None = None
    top_p: tuple[float, float] | None = None
    top_k: tuple[int, int] | None = None
    penalty: tuple[float, float] | None = None
    least_budget: int | None = None
    """The smallest thinking budget in tokens; ``None``: the wire has no budget."""
    only_budgets: bool = False
    """Whether the wire has no parameter for an effort."""
    budget_within_output: bool = False
    """Whether the budget must be less than ``max_output_tokens``; then an effort may be set as well."""
    budget_for_effort: bool = False
    """Whether models with efforts accept a budget instead."""
    pictures_in_results: bool = False
    """Whether a tool result may contain images; otherwise they are moved to a user turn after the results."""
    documents_in_results: bool = False
    """Whether a tool result may contain documents; otherwise they are moved to a user turn after the results."""
    errors_in_results: bool = False
    """Whether a tool result has a field that says that the tool failed; otherwise its text says it."""
    documents: frozenset[str] | None = frozenset()
    """The media types of documents that the target accepts; ``None``: the server decides."""
    text_documents: bool = False
    """Whether the target accepts text documents; otherwise their text replaces them."""
    document_urls: bool = False
    """Whether the target accepts documents by URL."""
    audio: frozenset[str] | None = frozenset()
    """The media types of audio that the target accepts; ``None``: the server decides."""
    audio_urls: bool = False
    """Whether the target accepts audio by URL."""
    empty_texts: bool = True
    """Whether a text, and a user's turn, may be empty."""
    blank_texts: bool = True
    """Whether a text may consist of white space only."""
    user_after_results: bool = True
    """Whether a user's turn may follow tool results; otherwise a turn of the assistant must stand between them."""
    input_types: frozenset[str] | None = None
    """The purposes of an embedding that the target accepts; ``None``: no limit is known."""
    names_one_tool: bool = True
    """Whether a call of one particular tool can be required; otherwise only that tool is offered."""
    strict_apart: bool = True
    """Whether each tool has its own setting that calls must match its schema."""
    json_without_schema: bool = True
    """Whether JSON can be requested without a schema; otherwise the model is instructed to write it."""
    json_schemas: bool = True
    """Whether a response can be required to match a JSON schema."""
    json_beside_tools: bool = True
    """Whether a response format may be combined with tools."""


class RequestTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the table: the parameters of one vendor on one wire."""

    name: str
    who: str
    """The target's name in error messages."""
    wire: str
    """The name of the dialect. It is also the key in ``extra`` of the fields of this wire."""
    is_open: bool = False
    """Whether fields of its wire that are not in the table are sent, so that the server accepts or refuses them."""
    lacks: frozenset[str] = frozenset()
    """The names of the rows whose parameters this target does not support although its column does."""
    has_custom_tools: bool = False
    """Whether the target supports custom tools, whose input is free text."""
    has_namespaces: bool = False
    """Whether the target supports functions in namespaces."""
    has_hosted_tools: bool = True
    """Whether hosted tools of the target's own wire are forwarded."""
    has_choices: bool | None = None
    """Whether a chat's response can have several choices, if nothing is known about the model. ``None``: the wire has
    no choices.
    """
    files: str | None = None
    """The vendor that stores the files which can be sent by id: `Media.vendor`."""
    limits: FormLimits = FormLimits()


_PDF: Final = frozenset(("application/pdf",))
_OPENAI_AUDIO: Final = frozenset(("audio/wav", "audio/mpeg"))
_OPENAI_NAME: Final = NameLimit(64)

_OPENAI: Final = FormLimits(
    user=64,
    cache_key=64,
    tool_name=_OPENAI_NAME,
    schema_name=_OPENAI_NAME,
    call_id=NameLimit(40, letters=r"\x21-\x7e"),
    speaker=NameLimit(64, letters=r"^\s<|\\/>"),
    stops=4,
    tools=128,
    temperature=(0, 2),
    top_p=(0, 1),
    penalty=(-2, 2),
    documents=_PDF,
    audio=_OPENAI_AUDIO,
)

TARGETS: Final[dict[str, RequestTarget]] = {
    target.name: target
    for target in (
        RequestTarget(
            name="openai",
            who="OpenAI's chat API",
            wire="openai_chat",
            is_open=True,
            has_custom_tools=True,
            has_choices=True,
            files="openai",
            limits=_OPENAI,
        ),
        RequestTarget(
            name="responses",
            who="OpenAI's Responses API",
            wire="openai_responses",
            is_open=True,
            has_custom_tools=True,
            has_namespaces=True,
            files="openai",
            limits=msgspec.structs.replace(
                _OPENAI,
                call_id=NameLimit(64, letters=r"\x21-\x7e"),
                stops=0,
                pictures_in_results=True,
                documents_in_results=True,
                document_urls=True,
                audio=frozenset(),
            ),
        ),
        RequestTarget(
            name="cerebras",
            who="Cerebras",
            wire="cerebras",
            limits=FormLimits(
                user=128,
                tool_name=_OPENAI_NAME,
                schema_name=_OPENAI_NAME,
                stops=4,
                temperature=(0, 2),
                top_p=(0, 1),
                penalty=(-2, 2),
            ),
        ),
        RequestTarget(
            name="compatible",
            who="the OpenAI-compatible server",
            wire="openai_chat",
            is_open=True,
            has_choices=False,
            files="openai",
            limits=FormLimits(user=128, documents=None, audio=None),
        ),
        RequestTarget(
            name="local",
            who="the local model",
            wire="openai_chat",
            is_open=True,
        ),
        RequestTarget(
            name="anthropic",
            who="Anthropic",
            wire="anthropic",
            is_open=True,
            files="anthropic",
            limits=FormLimits(
                user=256,
                tool_name=NameLimit(128),
                call_id=NameLimit(256),
                blank_stops=False,
                least_budget=1_024,
                budget_within_output=True,
                temperature=(0, 1),
                top_p=(0, 1),
                pictures_in_results=True,
                documents_in_results=True,
                errors_in_results=True,
                documents=_PDF,
                text_documents=True,
                document_urls=True,
                empty_texts=False,
                blank_texts=False,
                json_without_schema=False,
            ),
        ),
        RequestTarget(
            name="gemini",
            who="Gemini",
            wire="gemini",
            is_open=True,
            files="gemini",
            limits=FormLimits(
                tool_name=NameLimit(64, letters="a-zA-Z0-9_.:-", first="a-zA-Z_"),
                stops=5,
                least_budget=0,
                budget_for_effort=True,
                temperature=(0, 2),
                top_p=(0, 1),
                penalty=(-2, 2),
                pictures_in_results=True,
                documents_in_results=True,
                errors_in_results=True,
                documents=_PDF,
                document_urls=True,
                audio=None,
                audio_urls=True,
                empty_texts=False,
                input_types=frozenset(
                    (
                        "search_document",
                        "search_query",
                        "classification",
                        "clustering",
                        "semantic_similarity",
                        "question_answering",
                        "fact_verification",
                        "code_retrieval_query",
                        "RETRIEVAL_DOCUMENT",
                        "RETRIEVAL_QUERY",
                        "CLASSIFICATION",
                        "CLUSTERING",
                        "SEMANTIC_SIMILARITY",
                        "QUESTION_ANSWERING",
                        "FACT_VERIFICATION",
                        "CODE_RETRIEVAL_QUERY",
                    )
                ),
            ),
        ),
        RequestTarget(
            name="cohere",
            who="Cohere",
            wire="cohere",
            is_open=True,
            limits=FormLimits(
                tool_name=NameLimit(128, letters="a-zA-Z0-9_", first="a-zA-Z_"),
                stops=5,
                least_budget=1,
                only_budgets=True,
                temperature=(0, 1),
                top_p=(0.01, 0.99),
                top_k=(0, 500),
                penalty=(0, 1),
                names_one_tool=False,
                strict_apart=False,
                json_beside_tools=False,
            ),
        ),
    )
}
"""The targets by name. Differences between models are in the models' own rules."""

COMPATIBLE_RESPONSES: Final = msgspec.structs.replace(
    TARGETS["responses"],
    who="the server's Responses API",
    has_custom_tools=False,
    has_namespaces=False,
    has_hosted_tools=False,
    limits=msgspec.structs.replace(TARGETS["compatible"].limits, stops=0, pictures_in_results=True),
)
"""The Responses API of other servers. The column of the table is that of OpenAI, but the only tools are functions."""
