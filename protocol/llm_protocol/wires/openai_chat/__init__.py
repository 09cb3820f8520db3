"""OpenAI's chat completions, as OpenAI, Cerebras and OpenAI-compatible servers implement them: client side and server
side.

This package also contains the related endpoints: embeddings, images, legacy completions, the model list. Differences
between vendors are data: `llm_protocol.vendor_profile`.
"""

from llm_protocol.vendor_profile import CEREBRAS, COMPATIBLE, LOCAL, OPENAI, VendorProfile
from llm_protocol.wires.openai_chat.client import OpenAIChat
from llm_protocol.wires.openai_chat.server import OpenAIChatServer

__all__ = ["CEREBRAS", "COMPATIBLE", "LOCAL", "OPENAI", "OpenAIChat", "OpenAIChatServer", "VendorProfile"]
