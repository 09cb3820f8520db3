"""The interface between the server and the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from llm_actors.orchestrator import RecentRequest
from llm_actors.provider import PassthroughRequest, PassthroughResponse
from llm_actors.run import Run
from llm_actors.selector import Ranking
from llm_actors.store import StoreRef
from llm_protocol.dialect import ModelInfo
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest
from llm_protocol.response import TokenCount
from llm_runtime.config import Config


class RequestEngine(Protocol):
    """The part of the runtime that the server uses."""

    @property
    def store(self) -> StoreRef | None:
        """The store; ``None`` if it is not configured."""
        ...

    async def submit(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        """Start a request. Raises `LLMClientError` if the request is not accepted. All later failures are in the
        run's log. The deadline counts from ``since`` (Trio's clock; default: now). ``response_id`` is the id of the
        response.
        """
        ...

    @property
    def routes(self) -> Mapping[str, Policy]:
        """The configured routes, by name."""
        ...

    def forget(self, conversation: str | None = None, *, caller: str = "") -> int:
        """Delete the answers that are stored for one conversation of ``caller``, or for all its conversations. Returns
        the number of conversations.
        """
        ...

    def deadline_s(self, request: AnyRequest) -> float:
        """Return the deadline of a request, in seconds from its arrival."""
        ...

    def model_list(self, caller: str = "") -> Sequence[ModelInfo]:
        """The models that ``caller`` may use; ids have the form ``provider/model``."""
        ...

    def route_names(self, caller: str = "") -> Sequence[str]:
        """The configured routes that ``caller`` may use."""
        ...

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        """Return the number of tokens of a prompt. Raises `LLMClientError` for an unknown model."""
        ...

    async def gives_choices(self, request: AnyRequest) -> bool:
        """Whether every candidate can give all choices of ``request`` in one response."""
        ...

    def is_ready(self) -> bool:
        """Whether requests are accepted and at least one provider could serve them."""
        ...

    def parked_services(self) -> Sequence[str]:
        """Return the services that are parked after repeated crashes. Requests are served without them."""
        ...

    def recent_requests(self, caller: str | None = None) -> Sequence[RecentRequest]:
        """Return the requests that ended most recently, of all callers or of ``caller``, the latest first."""
        ...

    async def explain(self, model: str, *, caller: str = "") -> Ranking:
        """Return the candidates for a request of ``caller`` to ``model``, in order, with the reasons. Raises
        `LLMClientError`.
        """
        ...

    async def pass_through(
        self, provider: str, message: PassthroughRequest, *, caller: str, request_id: str
    ) -> PassthroughResponse:
        """Send a request to a provider unchanged. Raises `LLMClientError` if it is not sent."""
        ...

    def upstream_base(self, provider: str) -> str | None:
        """The path of a provider's base URL; ``None`` for a provider that does not exist or is disabled."""
        ...

    def refused(self, code: str, *, is_limit: bool) -> None:
        """Count a request that the server refused. ``code`` is the error code; ``is_limit``: a limit of the server was
        reached.
        """
        ...

    async def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        ...

    async def statistics(self, caller: str | None = None) -> object:
        """Return the metrics for the dashboard, as a value that msgspec can encode. With ``caller``, the usage of
        other callers is left out.
        """
        ...

    def on_reload(self, listener: Callable[[Config], None]) -> None:
        """Call ``listener``, synchronously, with each configuration that a reload applies."""
        ...

    def tree(self) -> object:
        """The supervision tree as a value that msgspec can encode."""
        ...
