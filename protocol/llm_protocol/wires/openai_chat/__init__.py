"""OpenAI's wire of chat completions, as OpenAI, Cerebras and every OpenAI-compatible server speak it.

With its neighbours on the same origin: embeddings, images, legacy completions, the model list. What differs from
vendor to vendor is data, in `quirks`.
"""

from llm_protocol.vendor_profile import CEREBRAS, COMPATIBLE, LOCAL, OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.client import OpenAIChat
from llm_protocol.wires.openai_chat.server import OpenAIChatServer

__all__ = ["CEREBRAS", "COMPATIBLE", "LOCAL", "OPENAI", "OpenAIChat", "OpenAIChatServer", "VendorProfile"]
