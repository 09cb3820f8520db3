"""What the door stands in front of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from llm_actors.kernel.trace import place
from llm_actors.run import Run
from llm_protocol.dialect import Inbound, ModelInfo
from llm_protocol.errors import InternalError, LLMClientError, UnsupportedError
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import AnyRequest

log = logging.getLogger("llm_runtime.door")


class Engine(Protocol):
    """The runtime, as far as a door needs it."""

    async def submit(self, request: AnyRequest, *, stream: bool, background: bool = False) -> Run:
        """Take a request on. Raises `LLMClientError` when it is not taken; after that all is said in the run's log."""
        ...

    def model_list(self) -> Sequence[ModelInfo]:
        """The models there are, ids as ``provider/model``."""
        ...

    def is_ready(self) -> bool:
        """Whether requests are taken."""
        ...

    def tree(self) -> object:
        """The supervision tree as something msgspec can encode."""
        ...


async def submitted(engine: Engine, inbound: Inbound, *, stream: bool, background: bool = False) -> Run:
    """Hand a client's request in. Raises `LLMClientError`, also for a bug in the engine: that is logged here and ends
    one request, not the connection with all its others.
    """
    if inbound.policy is not None:
        message = "llm_runtime: this version takes no options there"
        raise UnsupportedError(Failure(kind=FailureKind.UNSUPPORTED, message=message, param="llm_runtime"))
    try:
        return await engine.submit(inbound.request, stream=stream, background=background)
    except LLMClientError:
        raise
    except Exception as exc:
        # The exception's text may hold anything, so only its place is told.
        log.error("request %s was not taken: %s", inbound.request.request_id, place(exc))  # noqa: TRY400
        raise InternalError("the runtime failed to take the request") from exc
