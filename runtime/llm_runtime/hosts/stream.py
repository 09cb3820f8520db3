"""The common part of the streams of all hosts that run the runtime in another thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from llm_protocol.requests import AnyRequest
from llm_protocol.response import LLMResponse
from llm_runtime.hosts.actions import Action
from llm_runtime.hosts.feed import Feed, Received
from llm_runtime.hosts.portal import Portal
from llm_runtime.stream import part_of, wanted
from llm_runtime.typed import ResponseType


class HostStream(ABC):
    """One streamed response, whose events come from a `Feed` in the Trio thread. ``post`` runs an action in the host's
    thread. ``wake`` is an action to run there when the request is accepted and when a batch of events has arrived.
    """

    def __init__(
        self, portal: Portal[Any], request: AnyRequest, post: Callable[[Action], object], wake: Action
    ) -> None:
        self._portal = portal
        self._request = request
        self._received = Received(request)
        # These do not refer to the stream: a circle of references would keep it until the next garbage collection.
        self._feed = Feed(request, self._received, portal.turn_end, post, wake)
        self._is_left = False
        self.response_type: ResponseType[Any] | None = None
        """The type of the response's value, if one was requested."""

    @abstractmethod
    def _entered(self) -> Any:
        """Return the call that feeds the stream. Raises `RuntimeError` before the stream is entered."""

    @property
    def request_id(self) -> str:
        """The request's id."""
        return self._request.request_id

    @property
    def response(self) -> LLMResponse:
        """See `llm_runtime.ResponseStream.response`."""
        self._entered()
        return part_of(self._received.response, is_left=self._is_left and not self._received.has_ended)

    @property
    def parsed(self) -> Any:
        """See `llm_runtime.ResponseStream.parsed`."""
        return wanted(self.response_type).parse(self.response).parsed

    def cancel(self) -> None:
        """End the response now; the iteration then raises `RequestCancelledError` with the partial response."""
        self._entered()
        self._portal.post(self._feed.cancel)

    def _resume(self) -> None:
        self._portal.post(self._feed.go_on)
