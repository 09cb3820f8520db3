"""A supervised runtime for LLM calls, on Trio.

import llm_runtime, trio

async def main() -> None:
    async with llm_runtime.open_runtime() as rt:
        response = await rt.chat("Say hello.")
        print(response.content)

trio.run(main)
"""

from llm_protocol.content import Image, Message, Reasoning, ResponseFormat, Text, Tool, ToolCall, ToolChoice, ToolResult
from llm_protocol.errors import LLMClientError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest, CompletionRequest, LLMProvider, LLMRequest, Parameters, RequestType
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_runtime.answers import AnswerStream
from llm_runtime.config import Config, ConfigError
from llm_runtime.runtime import Runtime, open_runtime

__all__ = [
    "AnswerStream",
    "ChatRequest",
    "CompletionRequest",
    "Config",
    "ConfigError",
    "Failure",
    "FailureKind",
    "FinishReason",
    "Image",
    "LLMClientError",
    "LLMProvider",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "Parameters",
    "Reasoning",
    "RequestType",
    "ResponseFormat",
    "Runtime",
    "Text",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolResult",
    "Usage",
    "open_runtime",
]
