"""The data of Gemini's wire: finish reasons, the types of its responses, usage, the objects of its clients."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from llm_protocol.codec.body import POLICY, Body
from llm_protocol.codec.fields import bad_request
from llm_protocol.content import JsonObject
from llm_protocol.response import FinishReason, Usage

NAME = "gemini"
VERSION = "v1beta"
"""The API version that is part of every path: the one that Google's SDKs use."""

FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "LANGUAGE",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "ESCALATION",
            "PUP_LIMITED_DISABLED",
            "MODEL_ARMOR",
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
"""The finish reasons, by Gemini's names. A reason that is neither here nor in `BROKEN_REASONS` becomes
`FinishReason.UNKNOWN`; the text is kept.
"""

SENT_REASONS = {
    FinishReason.STOP: "STOP",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.UNKNOWN: "OTHER",
    FinishReason.ERROR: "OTHER",
}
BROKEN_REASONS = frozenset(
    [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "NO_IMAGE",
        "IMAGE_OTHER",
    ]
)
"""Reasons that mean the response is broken: the model did not finish it."""
ERROR_REASONS = BROKEN_REASONS | {"OTHER"}
BLOCK_REASONS = frozenset(
    ["OTHER", "JAILBREAK", "BLOCKLIST", "PROHIBITED_CONTENT", "SAFETY", "IMAGE_SAFETY", "MODEL_ARMOR"]
)

TASK_TYPES = {
    "search_document": "RETRIEVAL_DOCUMENT",
    "search_query": "RETRIEVAL_QUERY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "semantic_similarity": "SEMANTIC_SIMILARITY",
    "question_answering": "QUESTION_ANSWERING",
    "fact_verification": "FACT_VERIFICATION",
    "code_retrieval_query": "CODE_RETRIEVAL_QUERY",
}
INPUT_TYPES = {task: name for name, task in TASK_TYPES.items()}

NO_SIGNATURE = "skip_thought_signature_validator"
"""The value that Gemini 3 accepts in place of a signature, on a tool call of another model."""

ASPECTS: dict[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "3:2": (1536, 1024),
    "2:3": (1024, 1536),
    "4:3": (1152, 864),
    "3:4": (864, 1152),
    "5:4": (1280, 1024),
    "4:5": (1024, 1280),
    "16:9": (1344, 756),
    "9:16": (756, 1344),
    "21:9": (1568, 672),
}
"""The aspect ratios that image models support, each with its image size at 1K."""

SCALES = {"1K": 1, "2K": 2, "4K": 4}


class GeminiCall(msgspec.Struct, frozen=True, gc=False):
    """A call of a function."""

    name: str = ""
    args: JsonObject | None = None
    id: str | None = None


class GeminiBlob(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Bytes in base64."""

    mime_type: str | None = None
    data: str | None = None


class GeminiPart(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """A piece of content; the field that is set says of which kind. Any other field makes the strict decoding fail; the
    tolerant decoding keeps it.
    """

    text: str | None = None
    thought: Any = None
    thought_signature: str | None = None
    function_call: GeminiCall | None = None
    inline_data: GeminiBlob | None = None


class GeminiContent(msgspec.Struct, frozen=True, gc=False):
    """The content of a candidate."""

    parts: list[GeminiPart] | None = None


class GeminiCandidate(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """One of several choices of a response; only the choice with the index 0 is ever requested. Other fields are kept,
    as for `GeminiPart`.
    """

    content: GeminiContent | None = None
    finish_reason: str | int | None = None
    index: int | None = None


CANDIDATE_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(GeminiCandidate))
PART_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(GeminiPart))
"""The fields that are read. All others are kept for clients of this wire: grounding, citations, log probabilities."""


class GeminiFeedback(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Why a prompt was refused."""

    block_reason: str | int | None = None


class GeminiModality(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The number of tokens of one kind: text, images, audio."""

    modality: str | int | None = None
    token_count: int | None = None


class GeminiUsageMetadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Gemini's token counts: ``candidates`` excludes thoughts; ``prompt`` includes cached tokens, but not the results
    of tools.
    """

    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_tokens_details: list[GeminiModality] | None = None

    def usage(self) -> Usage:
        """Return the canonical `Usage`."""
        thoughts = self.thoughts_token_count or 0
        return Usage(
            input_tokens=(self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            output_tokens=(self.candidates_token_count or 0) + thoughts,
            cached_tokens=self.cached_content_token_count or 0,
            reasoning_tokens=thoughts,
            image_tokens=sum(d.token_count or 0 for d in self.candidates_tokens_details or () if d.modality == "IMAGE"),
        )


class GeminiChunk(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A complete response, or a chunk of a streamed one."""

    candidates: list[GeminiCandidate] | None = None
    prompt_feedback: GeminiFeedback | None = None
    usage_metadata: GeminiUsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


CHUNK_FIELDS = frozenset(
    (
        "candidates",
        "promptFeedback",
        "usageMetadata",
        "modelVersion",
        "responseId",
        "error",
        "llm_runtime",
    )
)
TOKENS_DETAILS = "candidatesTokensDetails"
USAGE_FIELDS = frozenset(
    (
        "promptTokenCount",
        "candidatesTokenCount",
        "totalTokenCount",
        "cachedContentTokenCount",
        "thoughtsTokenCount",
    )
)
FEEDBACK_FIELDS = frozenset(("blockReason",))
"""The fields that are read of a chunk, its usage and the prompt's feedback. All others are kept."""

_MADE_ID = "call_gemini_"


def made_id(*where: object) -> str:
    """Return an id for a call without one. ``where`` is the position of the call; the id is always the same for the
    same position.
    """
    return _MADE_ID + "_".join(map(str, where))


def vendor_id(call_id: str) -> str | None:
    """Return ``call_id`` as it is sent to Gemini: ``None`` if the runtime made it."""
    return None if call_id.startswith(_MADE_ID) else call_id


METHODS = ("generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents", "countTokens")


def camel(name: str) -> str:
    """Return a name such as ``inline_data`` in camel case (``inlineData``). Google accepts both forms."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class GeminiBody(Body):
    """A JSON object from a client, with names in camel case or snake case."""

    def __init__(self, fields: JsonObject, where: str = "", at: int | None = None) -> None:
        named = ((name if name == POLICY else camel(name), value) for name, value in fields.items())
        super().__init__(dict(named), where, at)

    # Pyright takes the Self of the base for Body itself.
    def objects(self, name: str) -> list[Self]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a list of objects; empty if absent. A single object counts as a list of one, as at Google."""
        one = self.object(name) if isinstance(self.raw.get(name), dict) else None
        return super().objects(name) if one is None else [one]


def needed(fields: GeminiBody, name: str) -> str:
    """Return the field ``name`` as a string. Raises `BadRequestError` if it is missing or empty."""
    value = fields.string(name)
    if not value:
        raise bad_request(fields.path(name), f"{fields.path(name)} is missing")
    return value
