"""The messages of a provider actor, and the client functions that send them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple, TypeAlias

import msgspec

from llm_actors.deployment import AttemptResult
from llm_actors.kernel import Call, Ref
from llm_actors.provider.passthrough import PassthroughRequest, PassthroughResponse
from llm_protocol.dialect import ClientDialect, ModelInfo
from llm_protocol.events import Event
from llm_protocol.parameters import Adapted
from llm_protocol.policy import Timeouts
from llm_protocol.requests import AnyRequest

Sink: TypeAlias = Callable[[Event], None]
"""Receives the events of a response as they arrive, except the terminal one. May raise `LogLimitExceeded`."""


class Prepared(NamedTuple):
    """A request as a provider can be told it, over the wire of ``dialect``."""

    dialect: ClientDialect
    adapted: Adapted


class Generate(Call[AttemptResult], frozen=True, kw_only=True):
    """Answer ``request``, whose ``model`` is the vendor's own name. ``stream``: as it is made, else as a whole.
    ``on_sent`` is called when the request begins to leave; before that the vendor knows nothing of it. ``prepared`` is
    the request as the vendor can be told it, where that is known already.
    """

    request: AnyRequest
    stream: bool
    sink: Sink
    timeouts: Timeouts | None = None
    on_sent: Callable[[], None] | None = None
    prepared: Prepared | None = None

    def fingerprint(self) -> Hashable:
        """What identifies a request's payload: everything but ids and times."""
        bare = msgspec.structs.replace(self.request, request_id="", timestamp=0.0, caller="")
        return type(self), msgspec.json.encode(bare, enc_hook=repr)


class ListModels(Call[tuple[ModelInfo, ...]], frozen=True):
    """List all models the provider offers. Fails with an `LLMClientError`."""


class CountTokens(Call[int | None], frozen=True, kw_only=True):
    """Count the tokens of the prompt of ``request``, by the vendor's endpoint; ``None`` if it has none. Fails with an
    `LLMClientError`.
    """

    request: AnyRequest


ProviderMessage: TypeAlias = Generate | ListModels | CountTokens | PassthroughRequest
ProviderRef: TypeAlias = Ref[ProviderMessage]


def generate(
    provider: ProviderRef,
    request: AnyRequest,
    *,
    stream: bool,
    sink: Sink,
    timeouts: Timeouts | None = None,
    on_sent: Callable[[], None] | None = None,
    prepared: Prepared | None = None,
) -> Awaitable[AttemptResult]:
    """One attempt at one provider. Waits until it has ended, for at most ``timeouts.total``.

    Every failure of the vendor or the network is part of the result. Raises a `KernelError` if the actor could not do
    it: crashed, parked, stopping. Cancelling it closes the connection to the vendor.
    """
    return provider.call(
        Generate(request=request, stream=stream, sink=sink, timeouts=timeouts, on_sent=on_sent, prepared=prepared)
    )


async def list_models(provider: ProviderRef) -> tuple[ModelInfo, ...]:
    """All models of the provider, from its configuration or else from the vendor.

    Waits for the vendor, within the caller's deadline. Raises `LLMClientError` or `KernelError`.
    """
    return await provider.call(ListModels())


def count_tokens(provider: ProviderRef, request: AnyRequest) -> Awaitable[int | None]:
    """The number of tokens of a prompt, by the vendor's endpoint; ``None`` if the vendor has none.

    Waits for the vendor, within the caller's deadline. Raises `LLMClientError` or `KernelError`.
    """
    return provider.call(CountTokens(request=request))


def send_passthrough(provider: ProviderRef, message: PassthroughRequest) -> Awaitable[PassthroughResponse]:
    """Send a request as it is. Waits until its answer has ended, and for the client in between.

    Every failure of the vendor or the network is in the outcome. Raises a `KernelError` when the actor could not do it.
    Cancelling it closes the connection to the vendor.
    """
    return provider.call(message)
