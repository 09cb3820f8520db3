"""OpenAI's Responses API, which is also the vendor-neutral Open Responses: the front door's own wire, both sides."""

from llm_protocol.dialects.openai_responses.client import OpenAIResponses
from llm_protocol.dialects.openai_responses.inbound import Create, ResponseOptions
from llm_protocol.dialects.openai_responses.reasoning import NAME
from llm_protocol.dialects.openai_responses.server import OpenAIResponsesServer

__all__ = ["NAME", "Create", "OpenAIResponses", "OpenAIResponsesServer", "ResponseOptions"]
