"""OpenAI's Responses API, which is also the vendor-neutral Open Responses API. It is the server's main wire. Both
sides.
"""

from llm_protocol.wires.responses.client import OpenAIResponses
from llm_protocol.wires.responses.server import Create, OpenAIResponsesServer
from llm_protocol.wires.responses.shapes import NAME, ResponseOptions

__all__ = ["NAME", "Create", "OpenAIResponses", "OpenAIResponsesServer", "ResponseOptions"]
