"""Cohere's v2 API (chat and embed), both sides."""

from llm_protocol.wires.cohere.client import Cohere
from llm_protocol.wires.cohere.server import CohereServer

__all__ = ["Cohere", "CohereServer"]
