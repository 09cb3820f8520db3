"""Gemini's generateContent wire (Google's Generative Language API, ``v1beta`` and ``v1``), both sides.

The model's name stands in the path, the key in the ``x-goog-api-key`` header, never in the URL. A streamed answer has
no end marker of its own: it is whole when its body ends after a ``finishReason`` (or a blocked prompt) was seen.
"""

from llm_protocol.wires.gemini.client import Gemini
from llm_protocol.wires.gemini.server import GeminiServer

__all__ = ["Gemini", "GeminiServer"]
