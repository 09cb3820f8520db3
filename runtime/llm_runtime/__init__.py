"""A supervised runtime for LLM calls, on Trio.

import llm_runtime, trio

async def main() -> None:
    async with llm_runtime.open_runtime() as rt:
        response = await rt.chat("Say hello.")
        print(response.content)

trio.run(main)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from llm_protocol.content import (
    Audio,
    Document,
    HostedTool,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_protocol.embedding import Embedding
from llm_protocol.errors import LLMClientError
from llm_protocol.events import (
    ChoiceFinished,
    Event,
    Failed,
    Finished,
    ItemDone,
    ItemStarted,
    MemberDelta,
    MemberDone,
    MemberFailed,
    MemberStarted,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.policy import AttemptsPatch, Policy, TimeoutsPatch
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeFile,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
    LLMProvider,
    LLMRequest,
    Parameters,
    RequestType,
)
from llm_protocol.response import FinishReason, LLMResponse, Usage

if TYPE_CHECKING:
    from llm_actors.cache import CacheStore
    from llm_actors.orchestrator import StrategyFunction, Team
    from llm_actors.selector import OrderingFunction, OrderingInputs, RankedCandidate

    __version__: str

    from llm_protocol.secret import Secret
    from llm_runtime.config import Config, ConfigError, Provider
    from llm_runtime.hooks import (
        AttemptEnded,
        AttemptStarted,
        EventsDropped,
        FirstToken,
        Middleware,
        Next,
        Observer,
        RunAccepted,
        RunEvent,
        RunFailed,
        RunFinished,
    )
    from llm_runtime.opening import open_runtime
    from llm_runtime.remote.runtime import RemoteRuntime, connect
    from llm_runtime.runtime import Runtime
    from llm_runtime.stream import ResponseStream
    from llm_runtime.tools import FunctionTool, ToolEnded, ToolRun, ToolStarted, tool
    from llm_runtime.typed import ParsedResponse, ResponseTypeError

__all__ = [
    "AnyRequest",
    "AttemptEnded",
    "AttemptStarted",
    "AttemptsPatch",
    "Audio",
    "CacheStore",
    "ChatRequest",
    "ChoiceFinished",
    "CodeFile",
    "CodeRequest",
    "CompletionRequest",
    "Config",
    "ConfigError",
    "Document",
    "Embedding",
    "EmbeddingRequest",
    "Event",
    "EventsDropped",
    "Failed",
    "Failure",
    "FailureKind",
    "FinishReason",
    "Finished",
    "FirstToken",
    "FunctionTool",
    "HostedTool",
    "Image",
    "ImageRequest",
    "ItemDone",
    "ItemStarted",
    "LLMClientError",
    "LLMProvider",
    "LLMRequest",
    "LLMResponse",
    "MemberDelta",
    "MemberDone",
    "MemberFailed",
    "MemberStarted",
    "Message",
    "Middleware",
    "Next",
    "Observer",
    "Opaque",
    "OrderingFunction",
    "OrderingInputs",
    "Parameters",
    "ParsedResponse",
    "Policy",
    "Provider",
    "RankedCandidate",
    "Reasoning",
    "ReasoningDelta",
    "Refusal",
    "RefusalDelta",
    "RemoteRuntime",
    "RequestType",
    "ResponseFormat",
    "ResponseStream",
    "ResponseTypeError",
    "Restarted",
    "RunAccepted",
    "RunEvent",
    "RunFailed",
    "RunFinished",
    "Runtime",
    "Secret",
    "Started",
    "StrategyFunction",
    "Team",
    "Text",
    "TextDelta",
    "TimeoutsPatch",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolEnded",
    "ToolResult",
    "ToolRun",
    "ToolStarted",
    "Usage",
    "UsageReported",
    "connect",
    "open_runtime",
    "tool",
]

# The types above are cheap to import. The actors are imported on first use, so that a program which imports this module
# early, or a command that only prints its help, does not wait for what it does not use.
_ON_FIRST_USE = {
    "AttemptEnded": "llm_runtime.hooks",
    "AttemptStarted": "llm_runtime.hooks",
    "EventsDropped": "llm_runtime.hooks",
    "FirstToken": "llm_runtime.hooks",
    "Middleware": "llm_runtime.hooks",
    "Next": "llm_runtime.hooks",
    "Observer": "llm_runtime.hooks",
    "RunAccepted": "llm_runtime.hooks",
    "RunEvent": "llm_runtime.hooks",
    "RunFailed": "llm_runtime.hooks",
    "RunFinished": "llm_runtime.hooks",
    "CacheStore": "llm_actors.cache",
    "OrderingFunction": "llm_actors.selector",
    "OrderingInputs": "llm_actors.selector",
    "RankedCandidate": "llm_actors.selector",
    "StrategyFunction": "llm_actors.orchestrator",
    "Team": "llm_actors.orchestrator",
    "ResponseStream": "llm_runtime.stream",
    "Config": "llm_runtime.config",
    "ConfigError": "llm_runtime.config",
    "Provider": "llm_runtime.config",
    "RemoteRuntime": "llm_runtime.remote.runtime",
    "Runtime": "llm_runtime.runtime",
    "Secret": "llm_protocol.secret",
    "connect": "llm_runtime.remote.runtime",
    "open_runtime": "llm_runtime.opening",
    "FunctionTool": "llm_runtime.tools",
    "ToolEnded": "llm_runtime.tools",
    "ToolRun": "llm_runtime.tools",
    "ToolStarted": "llm_runtime.tools",
    "tool": "llm_runtime.tools",
    "ParsedResponse": "llm_runtime.typed",
    "ResponseTypeError": "llm_runtime.typed",
}


_MODULES = ("aio", "sync")
"""The modules for other hosts: asyncio, and threads without an event loop."""


def __dir__() -> list[str]:
    return [*__all__, "__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from llm_protocol.version import VERSION

        return VERSION
    if name in _MODULES:
        return import_module(f"llm_runtime.{name}")
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_ON_FIRST_USE[name]), name)
    globals()[name] = value
    return value
