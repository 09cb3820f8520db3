"""The differences between vendors with the wire `openai_chat`: parameters, limits and fields."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from llm_protocol.parameters import COMPATIBLE_RESPONSES, TARGETS, RequestTarget
from llm_protocol.parameters.targets import NameLimit
from llm_protocol.requests import RequestType

FINGERPRINT = "fp_llm_runtime"
"""The system fingerprint for clients that require one, if the vendor sends none."""


class LimitHeaders(NamedTuple):
    """The response headers that contain a vendor's rate limits, in lower case. ``""``: the vendor has no such header.

    Limits and remaining amounts are numbers. A reset is a number of seconds, or a duration such as ``1m30s``.
    """

    requests_limit: str = "x-ratelimit-limit-requests"
    requests_remaining: str = "x-ratelimit-remaining-requests"
    requests_reset: str = "x-ratelimit-reset-requests"
    tokens_limit: str = "x-ratelimit-limit-tokens"
    tokens_remaining: str = "x-ratelimit-remaining-tokens"
    tokens_reset: str = "x-ratelimit-reset-tokens"


class VendorProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The differences of one vendor from OpenAI on the wire `openai_chat`."""

    api_version: str | None = None
    """The value of the wire's version header, if it has one and the request does not set it."""
    name: str = "openai_chat"
    """The name of the dialect: the key of its fields in ``Parameters.extra``."""
    vendor: str
    kind: str = "openai_compatible"
    """The kind under which `llm_protocol.model_rules` has the rules for the vendor's models."""
    request_types: frozenset[RequestType]
    target: RequestTarget
    """The column of the parameter table."""
    responses_target: RequestTarget = COMPATIBLE_RESPONSES
    """The column of the parameter table for the vendor's Responses API."""
    max_tokens_field: str = "max_tokens"
    user_field: str = "user"
    seed_field: str = "seed"
    developer_role: bool = False
    reasoning_field: str = "reasoning_content"
    """The field in which readable reasoning is written, in messages and deltas. ``reasoning_content`` and ``reasoning``
    are both read.
    """
    prefill_field: str | None = None
    """The field that marks the last message of the assistant as one to be continued, if the vendor requires it."""
    sends_reasoning: bool = True
    """Whether reasoning of earlier turns is sent back to the vendor."""
    message_fields: frozenset[str] | None = None
    """Additional fields that messages may have; ``None``: any."""
    names_speakers: bool = True
    """Whether messages may have a ``name``."""
    has_refusals: bool = True
    """Whether messages may have a ``refusal``; otherwise a refusal is sent back as text."""
    needs_parameters: bool = False
    """Whether a function without parameters must have a schema that says so."""
    signed_calls: bool = False
    """Whether a call's signature is sent back as ``extra_content``, where Gemini's compatible endpoint has it."""
    stream_usage: bool = True
    """Whether usage in a stream must be requested with ``stream_options``."""
    embedding_format: str | None = None
    whole_calls: bool = False
    """Whether a streamed call must be sent to clients in one piece: Cerebras' own clients expect the type in every
    piece.
    """
    fingerprint: str | None = None
    """The system fingerprint of responses; Cerebras' own clients do not accept a chunk without one."""
    limit_headers: LimitHeaders = LimitHeaders()
    limits_per_model: bool = False
    """Whether rate limits belong to the model that responded, and not to all models."""


OPENAI = VendorProfile(
    vendor="OpenAI",
    kind="openai",
    target=TARGETS["openai"],
    responses_target=TARGETS["responses"],
    # OpenAI still serves legacy completions, but their models will be shut down. A chat can do the same.
    request_types=frozenset((RequestType.CHAT, RequestType.EMBEDDING, RequestType.IMAGE_GENERATION)),
    max_tokens_field="max_completion_tokens",
    user_field="safety_identifier",
    developer_role=True,
    message_fields=frozenset(("audio",)),
    sends_reasoning=False,
    embedding_format="base64",
    limits_per_model=True,
)

CEREBRAS = VendorProfile(
    name="cerebras",  # not "openai": fields that clients send for OpenAI's wire would be refused
    vendor="Cerebras",
    kind="cerebras",
    target=TARGETS["cerebras"],
    request_types=frozenset((RequestType.CHAT,)),
    max_tokens_field="max_completion_tokens",
    reasoning_field="reasoning",
    stream_usage=False,
    whole_calls=True,
    fingerprint=FINGERPRINT,
    limit_headers=LimitHeaders(
        requests_limit="x-ratelimit-limit-requests-day",
        requests_remaining="x-ratelimit-remaining-requests-day",
        requests_reset="x-ratelimit-reset-requests-day",
        tokens_limit="x-ratelimit-limit-tokens-minute",
        tokens_remaining="x-ratelimit-remaining-tokens-minute",
        tokens_reset="x-ratelimit-reset-tokens-minute",
    ),
)

COMPATIBLE = VendorProfile(
    vendor="the OpenAI-compatible server",
    target=TARGETS["compatible"],
    request_types=frozenset(
        (RequestType.CHAT, RequestType.COMPLETION, RequestType.EMBEDDING, RequestType.IMAGE_GENERATION)
    ),
    signed_calls=True,
)

MISTRAL = msgspec.structs.replace(
    COMPATIBLE,
    target=msgspec.structs.replace(
        TARGETS["compatible"],
        has_choices=True,
        lacks=frozenset((
            "user", "store", "verbosity", "logit_bias", "web_search_options", "prompt_cache_key",
            "prompt_cache_retention", "prompt_cache_options",
        )),
        limits=msgspec.structs.replace(
            TARGETS["compatible"].limits,
            call_id=NameLimit(9, letters="a-zA-Z0-9", is_exact=True),
            user_after_results=False,
        ),
    ),
    # Mistral refuses unknown fields of requests and of messages. It sends usage without being asked.
    seed_field="random_seed",
    prefill_field="prefix",
    sends_reasoning=False,
    message_fields=frozenset(),
    names_speakers=False,
    has_refusals=False,
    signed_calls=False,
    needs_parameters=True,
    stream_usage=False,
)  # fmt: skip

GROQ = msgspec.structs.replace(
    COMPATIBLE,
    sends_reasoning=False,
    message_fields=frozenset(),
    has_refusals=False,
    signed_calls=False,
)
"""Groq refuses messages with unknown fields, among them ``reasoning_content``."""

DEEPSEEK = msgspec.structs.replace(
    COMPATIBLE,
    target=msgspec.structs.replace(
        TARGETS["compatible"],
        limits=msgspec.structs.replace(TARGETS["compatible"].limits, json_schemas=False),
    ),
    prefill_field="prefix",
)
"""DeepSeek continues a text at ``https://api.deepseek.com/beta`` only, so the configuration has to enable that. Its
formats of a response are text and JSON.
"""

LOCAL = msgspec.structs.replace(
    COMPATIBLE,
    vendor="the local model",
    kind="local",
    target=TARGETS["local"],
    request_types=frozenset((RequestType.CHAT, RequestType.COMPLETION)),
)
