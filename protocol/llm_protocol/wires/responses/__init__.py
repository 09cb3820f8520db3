"""OpenAI's Responses API, which is also the vendor-neutral Open Responses API: client side and server side. It is the
main wire of the server.
"""

from llm_protocol.wires.responses.client import OpenAIResponses
from llm_protocol.wires.responses.server import Create, OpenAIResponsesServer
from llm_protocol.wires.responses.shapes import NAME, ResponseOptions

__all__ = ["NAME", "Create", "OpenAIResponses", "OpenAIResponsesServer", "ResponseOptions"]
