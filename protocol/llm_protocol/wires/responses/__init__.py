"""OpenAI's Responses API, which is also the vendor-neutral Open Responses: the front door's own wire, both sides."""

from llm_protocol.wires.responses.client import OpenAIResponses
from llm_protocol.wires.responses.inbound import Create, ResponseOptions
from llm_protocol.wires.responses.reasoning import NAME
from llm_protocol.wires.responses.server import OpenAIResponsesServer

__all__ = ["NAME", "Create", "OpenAIResponses", "OpenAIResponsesServer", "ResponseOptions"]
