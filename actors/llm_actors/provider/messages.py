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
"""A function that receives the events of a response as they arrive, except the terminal event. It may raise
`LogLimitExceeded`, which fails the attempt.
"""


class Prepared(NamedTuple):
    """A request that was adapted to a provider, for the wire of ``dialect``."""

    dialect: ClientDialect
    adapted: Adapted


class Generate(Call[AttemptResult], frozen=True, kw_only=True):
    """Make one attempt at ``request``, whose ``model`` is the vendor's own name. The reply comes when it has ended: at
    most ``timeouts.total`` seconds later, by default those of the provider. Every failure of the vendor or the network
    is part of the result. Cancelling the call closes the connection to the vendor.

    ``stream``: request a streamed response. ``on_sent`` is called when the first byte of the request is about to be
    sent; before that, the vendor has received nothing. ``prepared``: the request as adapted to the provider, if that is
    known.
    """

    request: AnyRequest
    stream: bool
    sink: Sink
    timeouts: Timeouts | None = None
    on_sent: Callable[[], None] | None = None
    prepared: Prepared | None = None

    def fingerprint(self) -> Hashable:
        """Return the content of the request, without its id, time and caller: these differ when the same payload is
        sent again.
        """
        bare = msgspec.structs.replace(self.request, request_id="", timestamp=0.0, caller="")
        return type(self), msgspec.json.encode(bare, enc_hook=repr)


class ListModels(Call[tuple[ModelInfo, ...]], frozen=True):
    """List all models of the provider. Fails with an `LLMClientError`."""


class CountTokens(Call[int | None], frozen=True, kw_only=True):
    """Have the vendor count the tokens of the prompt of ``request``; ``None`` if the vendor has no endpoint for that.
    Fails with an `LLMClientError`.
    """

    request: AnyRequest


ProviderMessage: TypeAlias = Generate | ListModels | CountTokens | PassthroughRequest
ProviderRef: TypeAlias = Ref[ProviderMessage]


async def list_models(provider: ProviderRef) -> tuple[ModelInfo, ...]:
    """Return all models of the provider: those in its configuration, or else the vendor's list.

    Waits for the vendor, until the caller's deadline. Raises `LLMClientError` or `KernelError`.
    """
    return await provider.call(ListModels())


def count_tokens(provider: ProviderRef, request: AnyRequest) -> Awaitable[int | None]:
    """Return the number of tokens of a prompt, counted by the vendor; ``None`` if the vendor has no endpoint for that.

    Waits for the vendor, until the caller's deadline. Raises `LLMClientError` or `KernelError`.
    """
    return provider.call(CountTokens(request=request))


def send_passthrough(provider: ProviderRef, message: PassthroughRequest) -> Awaitable[PassthroughResponse]:
    """Send a request unchanged, and wait until the whole response was passed to ``message.taker``.

    Every failure of the vendor or the network is part of the result. Raises `KernelError` if the actor has crashed,
    is parked or is stopping. Cancelling this closes the connection to the vendor. Each wait has its own limit, so
    that a large body may take as long as it needs.
    """
    return provider.call(message, unlimited=True)
