"""What is known of each kind of provider before anyone has configured one."""

from __future__ import annotations

from typing import NamedTuple

from llm_protocol.requests import LLMProvider

LOCAL_MODEL = "smollm2"
"""The local model's name: it is addressed as ``local/smollm2``."""

LOCAL_SLOTS = 4
"""Answers the local model works on at once; what is more waits."""


class Vendor(NamedTuple):
    """A kind's usual address, the environment variable its users set, and how many answers it works on."""

    base_url: str | None
    key_variable: str | None
    max_concurrency: int = 256


VENDORS: dict[LLMProvider, Vendor] = {
    LLMProvider.OPENAI: Vendor("https://api.openai.com/v1", "OPENAI_API_KEY"),
    LLMProvider.ANTHROPIC: Vendor("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    LLMProvider.GEMINI: Vendor("https://generativelanguage.googleapis.com", "GEMINI_API_KEY"),
    LLMProvider.COHERE: Vendor("https://api.cohere.com", "COHERE_API_KEY"),
    LLMProvider.CEREBRAS: Vendor("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    LLMProvider.OPENAI_COMPATIBLE: Vendor(None, None),
    LLMProvider.LOCAL: Vendor(None, None, max_concurrency=LOCAL_SLOTS),
}
