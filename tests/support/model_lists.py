"""The vendors' model lists as they publish them at the end of November 2026, in their own JSON.

Names and order are those of the live lists; OpenAI's and Anthropic's entries have the dates that those lists carry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_protocol.requests import LLMProvider

_OPENAI_ENDS: Mapping[str, str] = {
    "2026-12-01": "gpt-image-1-mini gpt-image-1.5 gpt-image-1.5-2025-12-16 chatgpt-image-latest",
    "2026-12-11": "gpt-5 gpt-5-2025-08-07 gpt-5-mini gpt-5-mini-2025-08-07 gpt-5-nano gpt-5-nano-2025-08-07 gpt-5-pro"
    " gpt-5-pro-2025-10-06 o3 o3-2025-04-16 o3-pro o3-pro-2025-06-10",
    "2027-01-06": "tts-1 tts-1-hd gpt-4o-mini-tts",
    "2027-01-14": "gpt-4o gpt-4o-2024-08-06 gpt-4o-2024-11-20 gpt-4o-mini gpt-4o-mini-2024-07-18 gpt-4.1"
    " gpt-4.1-2025-04-14 gpt-4.1-mini gpt-4.1-mini-2025-04-14",
    "2027-01-20": "gpt-realtime gpt-audio gpt-audio-mini",
    "2027-02-26": "whisper-1 gpt-4o-transcribe gpt-4o-mini-transcribe",
    "2027-04-01": "gpt-5.1 gpt-5.1-2025-11-13 gpt-5.3-codex gpt-5.4-nano gpt-5.4-nano-2026-03-17",
}
_OPENAI_NAMES = (
    "text-embedding-ada-002 whisper-1 tts-1 tts-1-hd babbage-002 davinci-002 text-embedding-3-small"
    " text-embedding-3-large gpt-4o gpt-4o-2024-08-06 gpt-4o-2024-11-20 gpt-4o-mini gpt-4o-mini-2024-07-18"
    " omni-moderation-latest gpt-audio-2 gpt-4.1 gpt-4.1-2025-04-14 gpt-4.1-mini gpt-4.1-mini-2025-04-14 o3"
    " o3-2025-04-16 o3-pro o3-pro-2025-06-10 gpt-4o-transcribe gpt-4o-mini-transcribe gpt-4o-mini-tts"
    " chatgpt-image-latest gpt-image-1-mini gpt-image-1.5 gpt-image-1.5-2025-12-16 gpt-image-2"
    " gpt-image-2.5-flare gpt-image-2.5-sunburst gpt-image-2.6-flare gpt-image-2.6-sunburst gpt-realtime gpt-realtime-2"
    " gpt-audio gpt-audio-mini gpt-5-mini gpt-5-mini-2025-08-07 gpt-5 gpt-5-2025-08-07 gpt-5-nano"
    " gpt-5-nano-2025-08-07 gpt-5-pro gpt-5-pro-2025-10-06 gpt-5-search-api gpt-5.1 gpt-5.1-2025-11-13 gpt-5.2"
    " gpt-5.2-2025-12-11 gpt-5.2-pro gpt-5.3-codex gpt-5.4 gpt-5.4-2026-03-05 gpt-5.4-mini gpt-5.4-mini-2026-03-17"
    " gpt-5.4-nano gpt-5.4-nano-2026-03-17 gpt-5.4-pro gpt-5.5 gpt-5.5-pro gpt-5.6-luna gpt-5.6-terra gpt-5.6-sol"
    " gpt-6-luna gpt-6-sol gpt-6-astra gpt-6-cyber gpt-6-rosalind gpt-6.1-terra gpt-6.1-sol gpt-6.2-sol"
    " gpt-6.2-astra sora-2 sora-2-pro"
)
_ANTHROPIC = (
    ("claude-opus-5-5", "active", None, None),
    ("claude-haiku-5-5", "active", None, None),
    ("claude-sonnet-5-5", "active", None, None),
    ("claude-fable-5-2", "active", None, None),
    ("claude-opus-5", "active", None, None),
    ("claude-sonnet-5", "active", None, None),
    ("claude-opus-4-8", "active", None, None),
    ("claude-sonnet-4-6", "active", None, None),
    ("claude-opus-4-5-20251101", "deprecated", "2026-11-23T00:00:00Z", "2027-01-22T00:00:00Z"),
    ("claude-haiku-4-5-20251001", "active", None, None),
    ("claude-sonnet-4-5-20250929", "deprecated", "2026-09-29T00:00:00Z", "2026-11-30T00:00:00Z"),
    ("claude-opus-4-1-20250805", "retired", "2026-06-05T00:00:00Z", "2026-08-05T00:00:00Z"),
)
_TALKS = ["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"]
_DRAWS = ["generateContent", "countTokens", "batchGenerateContent"]
_LIVE = ["bidiGenerateContent"]
_GEMINI: tuple[tuple[str, list[str]], ...] = (
    ("gemini-2.5-flash", _TALKS),
    ("gemini-2.5-pro", _TALKS),
    ("gemini-2.5-flash-preview-tts", _DRAWS),
    ("gemma-4-26b-a4b-it", _DRAWS),
    ("gemini-2.5-flash-lite", _TALKS),
    ("gemini-3.8-live", _LIVE),
    ("gemini-3.8-live-extended-thinking", _LIVE),
    ("gemini-3.5-live-translate-preview", _LIVE),
    ("gemini-3-flash-preview", _TALKS),
    ("gemini-3.1-pro-preview", _TALKS),
    ("gemini-3.1-pro-preview-customtools", _TALKS),
    ("gemini-3.1-flash-lite", _TALKS),
    ("gemini-3-pro-image", _DRAWS),
    ("nano-banana-pro-preview", _DRAWS),
    ("gemini-3.1-flash-image", _DRAWS),
    ("gemini-3.1-flash-lite-image", _DRAWS),
    ("gemini-3.5-flash", _TALKS),
    ("gemini-3.5-flash-lite", _TALKS),
    ("gemini-3.6-flash", _TALKS),
    ("gemini-3.7-flash", _TALKS),
    ("gemini-3.8-flash", _TALKS),
    ("gemini-3.8-flash-tts", _DRAWS),
    ("gemini-4-argon", _TALKS),
    ("gemini-4-hydrogen", _TALKS),
    ("gemini-omni-1.1-flash", _DRAWS),
    ("gemini-robotics-er-2-preview", _TALKS),
    ("gemini-embedding-001", ["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"]),
    ("gemini-embedding-2", ["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"]),
    ("aqa", ["generateAnswer"]),
    ("imagen-4.0-generate-001", ["predict"]),
    ("veo-3.1-generate-preview", ["predictLongRunning"]),
)
_COHERE: tuple[tuple[str, list[str], bool], ...] = (
    ("command-a-vision-07-2025", ["chat"], False),
    ("command-a-translate-08-2025", ["chat"], False),
    ("command-r-03-2024", ["generate", "chat", "summarize"], True),
    ("command-a-reasoning-08-2025", ["chat"], False),
    ("command-a-03-2025", ["generate", "chat", "summarize"], False),
    ("command-r7b-12-2024", ["generate", "chat", "summarize"], False),
    ("command-r-08-2024", ["generate", "chat", "summarize"], False),
    ("embed-multilingual-v3.0", ["embed", "classify"], False),
    ("embed-v4.0", ["embed", "classify"], False),
    ("rerank-v3.5", ["rerank"], False),
    ("c4ai-aya-vision-32b", ["chat"], False),
)


def _openai() -> Any:
    ends = {name: day for day, names in _OPENAI_ENDS.items() for name in names.split()}
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 1_700_000_000, "shutdown_date": ends.get(name)}
            for name in _OPENAI_NAMES.split()
        ],
    }


def _anthropic() -> Any:
    fields = ("id", "lifecycle", "deprecated_at", "retires_at")
    common = {"type": "model", "created_at": "2026-01-01T00:00:00Z", "max_input_tokens": 1_000_000}
    return {"data": [common | dict(zip(fields, each, strict=True)) for each in _ANTHROPIC], "has_more": False}


def _gemini() -> Any:
    return {"models": [{"name": f"models/{name}", "supportedGenerationMethods": how} for name, how in _GEMINI]}


def _cohere() -> Any:
    fields = ("name", "endpoints", "is_deprecated")
    return {"models": [dict(zip(fields, each, strict=True)) for each in _COHERE]}


def _cerebras() -> Any:
    names = ("zai-glm-4.7", "gemma-4-31b", "gpt-oss-120b", "qwen-3.8-27b")
    return {"object": "list", "data": [{"id": name, "created": 0, "owned_by": "Cerebras"} for name in names]}


MODEL_LISTS: Mapping[LLMProvider, bytes] = {
    LLMProvider.OPENAI: json.dumps(_openai()).encode(),
    LLMProvider.ANTHROPIC: json.dumps(_anthropic()).encode(),
    LLMProvider.GEMINI: json.dumps(_gemini()).encode(),
    LLMProvider.COHERE: json.dumps(_cohere()).encode(),
    LLMProvider.CEREBRAS: json.dumps(_cerebras()).encode(),
}
"""The body of each vendor's list."""
