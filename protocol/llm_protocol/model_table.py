"""The rows of `llm_protocol.model_rules`, as data. The first row whose pattern matches a model's short name counts.

The facts are from the vendors' pages as of 29 November 2026. If these are silent, they are from the vendors' error
messages, as others report them:

* developers.openai.com/api/docs/models, /guides/deployment-checklist (tools and sampling); for ``stop``
  github.com/huggingface/smolagents/issues/1893 and github.com/BerriAI/litellm/pull/28650
* platform.claude.com/docs: /models/overview, whats-new and migration-guide of each model,
  /build-with-claude/preserved-thinking, /build-with-claude/mid-conversation-system-messages
* ai.google.dev/gemini-api/docs/thinking and whats-new of each model, docs.cloud.google.com/vertex-ai/generative-ai/docs
* docs.cohere.com/docs/models and the pages of the models; inference-docs.cerebras.ai/models

Compatible servers have few rows: their lists and their refusals show what their models accept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from llm_protocol.model_facts import Effort, ModelRule, Row

_SEES: Final = {"vision": True, "documents": True, "audio": False}
_READS: Final = {"vision": False, "documents": False, "audio": False}


def _row(pattern: str, **facts: Any) -> Row:
    return pattern, ModelRule(**facts)


def _efforts(least: Effort, most: Effort, *, without: Sequence[Effort] = ()) -> tuple[Effort, ...]:
    order: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    return tuple(each for each in order[order.index(least) : order.index(most) + 1] if each not in without)


# ---------------------------------------------------------------- OpenAI


def _gpt(pattern: str, efforts: tuple[Effort, ...], default: Effort | None, **facts: Any) -> Row:
    known = {"thinking": ("effort",), "efforts": efforts, "default_effort": default, "sampling": "without_reasoning"}
    return _row(pattern, **{**known, **_SEES, **_MILLION, **facts})


_MILLION: Final = {"context_window": 1_050_000, "max_output_tokens": 128_000}
_400K: Final = {"context_window": 400_000, "max_output_tokens": 128_000}
_128K: Final = {"context_window": 128_000, "max_output_tokens": 16_384}
_TOOLS_ON_CHAT: Final = {"wire": "responses_if_tools_and_reasoning"}
_NONE_TO_MAX: Final = _efforts("none", "max", without=("minimal",))
_NONE_TO_XHIGH: Final = _efforts("none", "xhigh", without=("minimal",))

_OPENAI: Final = (
    _row(r"gpt-[5-9][\d.]*-chat|chatgpt", thinking=(), **_SEES, **_128K),
    _gpt(r"gpt-5-pro", ("high",), "high", wire="responses", stop=False, **_400K),
    _gpt(r"gpt-[5-9][\d.]*-pro", _efforts("medium", "xhigh"), "medium", wire="responses", stop=False),
    _gpt(r"(gpt-5[\d.]*-)?codex|gpt-5[\d.]*-codex", _efforts("low", "xhigh"), "medium", wire="responses", **_400K),
    _row(
        r"o\d-pro|.*deep-research|computer-use",
        wire="responses",
        thinking=("effort",),
        sampling="never",
        stop=False,
        audio=False,
    ),
    # Its greatest effort over Chat Completions; over Responses it has max.
    _gpt(r"gpt-6\.1-sol", _efforts("low", "xhigh"), "medium", wire="responses_if_tools"),
    _gpt(r"gpt-6(\.\d)?-astra|gpt-6\.2-sol", _efforts("low", "max"), "medium", wire="responses_if_tools"),
    _gpt(r"gpt-[6-9]|gpt-5\.[6-9]", _NONE_TO_MAX, "medium", **_TOOLS_ON_CHAT),
    _gpt(r"gpt-5\.5", _NONE_TO_XHIGH, "medium", **_TOOLS_ON_CHAT),
    _gpt(r"gpt-5\.4-(mini|nano)", _NONE_TO_XHIGH, "none", stop=False, **_TOOLS_ON_CHAT, **_400K),
    _gpt(r"gpt-5\.4", _NONE_TO_XHIGH, "none", stop=False, **_TOOLS_ON_CHAT),
    _gpt(r"gpt-5\.[23]", _NONE_TO_XHIGH, "none", stop=False, **_400K),
    _gpt(r"gpt-5\.1", _efforts("none", "high", without=("minimal",)), "none", stop=False, **_400K),
    _gpt(r"gpt-5(?!\.)", _efforts("minimal", "high"), "medium", sampling="never", stop=False, **_400K),
    _row(r"o1-(mini|preview)", thinking=("effort",), sampling="never", stop=False, tools=False, **_READS),
    _gpt(
        r"o3-mini",
        _efforts("low", "high"),
        "medium",
        sampling="never",
        stop=False,
        parallel_calls=False,
        vision=False,
        documents=False,
    ),
    _gpt(
        r"o\d",
        _efforts("low", "high"),
        "medium",
        sampling="never",
        stop=False,
        parallel_calls=False,
        context_window=200_000,
        max_output_tokens=100_000,
    ),
    _row(r"gpt-4o(-mini)?-search", wire="chat", thinking=(), **_SEES, **_128K),
    _row(
        r"gpt-audio|gpt-4o(-mini)?-audio", wire="chat", thinking=(), vision=False, documents=False, audio=True, **_128K
    ),
    _row(r"gpt-4\.1", thinking=(), **_SEES, context_window=1_047_576, max_output_tokens=32_768),
    _row(r"gpt-4o", thinking=(), **_SEES, **_128K),
    _row(r"gpt-4-turbo", thinking=(), vision=True, documents=False, audio=False, context_window=128_000),
    _row(r"gpt-4-", thinking=(), **_READS),
    _row(r"gpt-4$", thinking=(), **_READS, context_window=8_192, max_output_tokens=8_192),
    _row(r"gpt-3\.5", thinking=(), **_READS, context_window=16_385, max_output_tokens=4_096),
)

# ---------------------------------------------------------------- Anthropic

_CLAUDE_BUDGETS: Final = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 31_999,
}


def _claude(pattern: str, **facts: Any) -> Row:
    """A row for current Claude models: they choose how much to think, within an effort, and accept only their own
    earlier reasoning.
    """
    known = {
        "thinking": ("adaptive", "effort"),
        "efforts": _efforts("low", "max"),
        "default_effort": "high",
        "thinking_off": "disabled",
        "sampling": "never",
        "replay": "same_model",
        "context_window": 1_000_000,
        "max_output_tokens": 128_000,
    }
    return _row(pattern, **{**known, **_SEES, **facts})


def _old_claude(pattern: str, max_output_tokens: int, **facts: Any) -> Row:
    """A row for Claude models before 4.6, which think only if the request has a token budget for it."""
    known = {
        "thinking": ("budget",),
        "thinking_off": "disabled",
        "default_effort": "none",
        "budgets": _CLAUDE_BUDGETS,
        "prefill": True,
        "mid_system": False,
        "context_window": 200_000,
        "max_output_tokens": max_output_tokens,
    }
    return _row(pattern, **{**known, **_SEES, **facts})


_MIDDLE_CLAUDE: Final = {
    "efforts": _efforts("low", "max", without=("xhigh",)),
    "thinking": ("adaptive", "effort", "budget"),
    "default_effort": "none",
    "budgets": _CLAUDE_BUDGETS,
    "sampling": "always",
    "mid_system": False,
    "replay": "always",
}
_ALWAYS_THINKS: Final = {"thinking_off": "never", "forced_tools": False}

_ANTHROPIC: Final = (
    _claude(r"claude-opus-5-5", default_effort="medium", **_ALWAYS_THINKS),
    _claude(r"claude-(fable|mythos)-5-\d", **_ALWAYS_THINKS),
    _claude(r"claude-(fable|mythos)", thinking_off="never", replay="always"),
    _claude(r"claude-sonnet-5-5", forced_tools=False, thinking_off="between_tools", thinking_off_up_to="high"),
    # Its thoughts can be read by other models, but it reads no other's.
    _claude(r"claude-haiku-5-5", default_effort="medium", thinking_off_up_to="high"),
    _claude(r"claude-opus-5", thinking_off_up_to="high", replay="always"),
    _claude(r"claude-sonnet-5", mid_system=False, replay="always"),
    _claude(r"claude-opus-4-8", default_effort="none", replay="always"),
    _claude(r"claude-opus-4-7", default_effort="none", mid_system=False, replay="always"),
    _claude(r"claude-(opus|sonnet)-4-6", **_MIDDLE_CLAUDE),
    _old_claude(
        r"claude-opus-4-5",
        64_000,
        thinking=("effort", "budget"),
        efforts=_efforts("low", "high"),
    ),
    _old_claude(r"claude-opus-4(-[01]|-2025|@|-v|$)", 32_000),
    _old_claude(r"claude-(sonnet|haiku)-4(-[05]|-2025|@|-v|$)", 64_000),
    _old_claude(r"claude-3-7", 64_000),
    _old_claude(r"claude-3-5", 8_192, thinking=()),
    _old_claude(r"claude-3", 4_096, thinking=()),
    _old_claude(r"claude-(2|instant)", 4_096, thinking=(), vision=False, documents=False, context_window=None),
    _claude(r"claude"),  # newer than this table
    # Compatible servers: requests are encoded as for an old Claude, and the server refuses what it does not support.
    _old_claude(r"", 32_000, vision=None, documents=None, audio=None, context_window=None),
)

# ---------------------------------------------------------------- Gemini


def _gemini(pattern: str, efforts: tuple[Effort, ...], default: Effort, **facts: Any) -> Row:
    known = {
        "thinking": ("effort",),
        "efforts": efforts,
        "default_effort": default,
        "signed_calls": True,
        "mid_system": False,
        "vision": True,
        "documents": True,
        "audio": True,
    }
    return _row(pattern, **{**known, **facts})


_GEMINI_SIZE: Final = {"context_window": 1_048_576, "max_output_tokens": 65_536}
_GEMINI_BUDGETS: Final = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
_GEMINI_2: Final = {
    "thinking": ("budget",),
    "mid_system": False,
    "vision": True,
    "documents": True,
    "audio": True,
}

_GEMINI: Final = (
    _row(r"gemini-2\.5.*image", **{**_GEMINI_2, "thinking": ()}, draws=True),
    _gemini(r".*image|nano-banana", _efforts("low", "high"), "medium", draws=True),
    _row(r"gemini-2\.5-pro", **_GEMINI_2, budgets={"none": 128, **_GEMINI_BUDGETS, "xhigh": 32_768, "max": 32_768}),
    _row(r"gemini-2\.5", **_GEMINI_2, budgets={"none": 0, **_GEMINI_BUDGETS, "xhigh": 24_576, "max": 24_576}),
    _row(r"gemini-[12]", **{**_GEMINI_2, "thinking": ()}),
    _row(r"gemma|learnlm", thinking=(), mid_system=False),
    _gemini(r"gemini-4", _efforts("low", "xhigh"), "medium", **_GEMINI_SIZE),
    _gemini(r"gemini-3\.1-flash-lite$", _efforts("minimal", "high"), "minimal", **_GEMINI_SIZE),
    _gemini(r"gemini-(3-flash|3\.[56]-flash|.*flash-lite)", _efforts("minimal", "high"), "medium", **_GEMINI_SIZE),
    _gemini(r"gemini-3(\.1)?-pro-preview", _efforts("low", "high"), "high", **_GEMINI_SIZE),
    # For an unknown model: what all models of Gemini 3 accept.
    _gemini(r"", _efforts("low", "high"), "medium"),
)

# ---------------------------------------------------------------- Cohere, Cerebras, the local model

_COHERE_BUDGETS: Final = {"minimal": 512, "low": 1_024, "medium": 4_096, "high": None, "xhigh": None, "max": None}
_COHERE_THINKS: Final = {"thinking": ("budget",), "budgets": _COHERE_BUDGETS, "default_effort": "high"}

_COHERE: Final = (
    _row(r"embed-(english|multilingual)(-light)?-v2", base64_vectors=False),
    _row(r"command-a-reasoning", **_COHERE_THINKS, **_READS, context_window=256_000, max_output_tokens=32_000),
    _row(r"command-a-vision", thinking=(), vision=True, documents=False, audio=False, context_window=128_000),
    _row(r"command-a-translate", thinking=(), **_READS, context_window=16_000, max_output_tokens=8_000),
    _row(r"command-a-plus", **_COHERE_THINKS),
    _row(r"command-a(-\d|$)", thinking=(), **_READS, context_window=256_000, max_output_tokens=8_000),
    _row(r"command-r", thinking=(), **_READS, context_window=128_000, max_output_tokens=4_000),
    # An unknown model may support thinking: if it does not, the vendor refuses the request.
    _row(r"", thinking=("budget",), budgets=_COHERE_BUDGETS),
)

_CEREBRAS: Final = (
    _row(r"gpt-oss", thinking=("effort",), efforts=_efforts("low", "high"), default_effort="medium", **_READS),
    _row(
        r"qwen-3\.8",
        thinking=("effort",),
        efforts=_efforts("none", "high", without=("minimal",)),
        default_effort="high",
        **_READS,
    ),
    # Its chats accept only text and images.
    _row(r"", documents=False, audio=False),
)

# docs.mistral.ai/capabilities/completion: the model continues a last message of the assistant with ``prefix``.
_MISTRAL: Final = (_row(r"", prefill=True),)

_COMPATIBLE: Final = (_row(r".*image", draws=True),)
_LOCAL: Final = (_row(r"", thinking=(), prefill=True, **_READS),)

ROWS: Final[Mapping[str, tuple[Row, ...]]] = {
    "openai": _OPENAI,
    "anthropic": _ANTHROPIC,
    "gemini": _GEMINI,
    "cohere": _COHERE,
    "cerebras": _CEREBRAS,
    "mistral": _MISTRAL,
    "openai_compatible": _COMPATIBLE,
    "local": _LOCAL,
}
"""The rows by vendor, in the order in which they are tried."""
