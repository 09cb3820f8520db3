"""Gemini's generateContent wire (Google's Generative Language API, ``v1beta`` and ``v1``), both sides.

The model's name is in the path, the key in the ``x-goog-api-key`` header, never in the URL. A streamed response has no
end marker: it is complete if its body ends after a ``finishReason`` or a blocked prompt.
"""

from llm_protocol.wires.gemini.client import Gemini
from llm_protocol.wires.gemini.server import GeminiServer

__all__ = ["Gemini", "GeminiServer"]
