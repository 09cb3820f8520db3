"""What the door stands in front of."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from llm_actors.run import Run
from llm_actors.selector import Ranking
from llm_protocol.codec.fields import typed
from llm_protocol.dialect import Inbound, ModelInfo
from llm_protocol.policy import Policy
from llm_protocol.requests import AnyRequest
from llm_protocol.response import TokenCount
from llm_protocol.wire_headers import IDEMPOTENCY, forwarded, meaning_of


class RequestEngine(Protocol):
    """The runtime, as far as a door needs it."""

    async def submit(
        self,
        request: AnyRequest,
        *,
        stream: bool,
        background: bool = False,
        since: float | None = None,
        response_id: str | None = None,
    ) -> Run:
        """Take a request on. Raises `LLMClientError` when it is not taken; after that all is said in the run's log. Its
        deadline counts from ``since`` on (Trio's clock), by default from now. ``response_id``: the id of its response.
        """
        ...

    def deadline_s(self, request: AnyRequest) -> float:
        """Seconds that a request has."""
        ...

    def model_list(self, caller: str = "") -> Sequence[ModelInfo]:
        """The models that ``caller`` may use, ids as ``provider/model``."""
        ...

    def route_names(self, caller: str = "") -> Sequence[str]:
        """The configured routes that ``caller`` may use."""
        ...

    async def count_tokens(self, request: AnyRequest) -> TokenCount:
        """How many tokens a prompt has. Raises `LLMClientError` for an unknown model."""
        ...

    def is_ready(self) -> bool:
        """Whether requests are taken, and somebody could answer them."""
        ...

    def parked_services(self) -> Sequence[str]:
        """Which parts of the runtime rest after too many crashes; requests go on without them."""
        ...

    async def explain(self, model: str, *, caller: str = "") -> Ranking:
        """Who would be asked for ``model`` by ``caller``, and why. Raises `LLMClientError`."""
        ...

    def refused(self, code: str, *, is_limit: bool) -> None:
        """The door has refused a request, for its own reasons; because of a limit of its own."""
        ...

    async def metrics(self) -> bytes:
        """What Prometheus is told."""
        ...

    async def statistics(self) -> object:
        """The same for the dashboard, as something msgspec can encode."""
        ...

    def tree(self) -> object:
        """The supervision tree as something msgspec can encode."""
        ...


_POLICY = msgspec.json.Decoder(Policy)


def with_headers(inbound: Inbound, headers: Mapping[str, str], caller: str, secret: bytes | None) -> Inbound:
    """The request with the header fields that go on to a provider of the client's wire.

    ``secret`` is the caller's, where keys are configured: two callers with the same idempotency key must not be given
    each other's answers by a vendor that knows only the runtime's account.
    """
    parameters = inbound.request.parameters
    own, more = meaning_of(headers, parameters.wire), forwarded(headers)
    if secret is not None and IDEMPOTENCY in more:
        said = f"{caller}\0{more[IDEMPOTENCY]}".encode("utf-8", "surrogateescape")
        more[IDEMPOTENCY] = hmac.new(secret, said, "sha256").hexdigest()
    if not own and not more:
        return inbound
    parameters = msgspec.structs.replace(parameters, headers=own)
    request = msgspec.structs.replace(inbound.request, parameters=parameters, forwarded=more)
    return inbound._replace(request=request)


def admitted(caller: str, inbound: Inbound) -> Inbound:
    """The request with the name of the key it came with, and with what its ``llm_runtime`` object says of how it is to
    be answered. Raises `BadRequestError`: a field that is unknown there is refused, since it is our own.
    """
    policy = None if inbound.policy is None else _policy(inbound.policy)
    if not caller and policy is None:
        return inbound
    return inbound._replace(request=msgspec.structs.replace(inbound.request, caller=caller, policy=policy))


def _policy(raw: msgspec.Raw) -> Policy:
    try:
        return _POLICY.decode(raw)
    except msgspec.MsgspecError:
        return typed(msgspec.json.decode(raw), Policy, "llm_runtime")  # for its words
