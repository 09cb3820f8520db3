"""Frameworks that talk to models, by environment: what is installed there."""

from __future__ import annotations

LANGCHAIN = (
    "langchain>=1,<2",
    "langchain-openai>=1.7,<2",
    "langchain-anthropic>=1.7,<2",
    "langchain-google-genai>=4.4,<5",
    "langchain-cohere>=0.6,<1",
    "langgraph>=1.2,<2",
    "langchain-tests>=1.1,<2",
)
