"""Frameworks that talk to models: the environment of each, and what is installed there."""

from __future__ import annotations

from typing import NamedTuple

LANGCHAIN = (
    "langchain>=1,<2",
    "langchain-openai>=1.7,<2",
    "langchain-anthropic>=1.7,<2",
    "langchain-google-genai>=4.4,<5",
    "langchain-cohere>=0.6,<1",
    "langgraph>=1.2,<2",
    "langchain-tests>=1.1,<2",
)


class Framework(NamedTuple):
    """One environment. ``files``: how many the script of the framework has its model write."""

    name: str
    packages: tuple[str, ...]
    files: int


FRAMEWORKS = {
    "langchain_agents": Framework("langchain", LANGCHAIN, 5),
    "pydantic_agents": Framework("pydantic-ai", ("pydantic-ai-slim[openai,anthropic,google,cohere]>=2.62,<3",), 4),
    "instructor_client": Framework("instructor", ("instructor>=1.17,<2", "anthropic", "google-genai"), 2),
    "litellm_client": Framework("litellm", ("litellm>=1.80,<2",), 3),
    "llama_index_agents": Framework(
        "llama-index", ("llama-index-core>=0.14,<1", "llama-index-llms-openai-like>=0.8,<1"), 1
    ),
}
"""By script."""
