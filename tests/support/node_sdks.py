"""The SDKs for Node that tests/clients runs, by script."""

from __future__ import annotations

PACKAGES = {
    "ai_sdk": (
        "ai@7.0.173",
        "@ai-sdk/openai@4.0.118",
        "@ai-sdk/anthropic@4.0.105",
        "@ai-sdk/google@4.0.121",
        "@ai-sdk/openai-compatible@2.0.92",
    ),
    "openai_node": ("openai@7.59.0",),
}
