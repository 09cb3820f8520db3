"""Several choices in one response. One run produces all of them if the vendor supports that. Otherwise one run per
choice is executed, concurrently, and the client receives one combined response.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import final

import msgspec

from llm_actors.orchestrator.decision_record import count_calls
from llm_actors.orchestrator.spending import Spent
from llm_protocol.adjustments import Adjustment
from llm_protocol.client_headers import IDEMPOTENCY
from llm_protocol.content import JsonObject
from llm_protocol.dialect import ClientRequest, Frame, ServerDialect
from llm_protocol.events import Failed, Finished, Started
from llm_protocol.failures import FailureKind
from llm_protocol.requests import AnyRequest, CompletionRequest
from llm_protocol.response import LLMResponse
from llm_protocol.wires.openai_chat.choices import FirstChoiceFirst, closing_frames, in_one_call
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import encode_end, stream_from
from llm_runtime.server.subscription import RunSubscription


async def natively(context: RequestContext, inbound: ClientRequest) -> ClientRequest | None:
    """Return ``inbound`` as one request for all its choices if every candidate supports that; else ``None``. One
    request pays for the prompt only once.
    """
    single = in_one_call(inbound)
    return single if single is not None and await context.server_state.engine.gives_choices(single.request) else None


async def respond_with_choices(context: RequestContext, dialect: ServerDialect, inbound: ClientRequest) -> None:
    """Start a run for each choice, and send the combined response. The first failure ends the response and the other
    runs. A disconnect of the client ends them, too. Raises `LLMClientError` if a run is not accepted.
    """
    with ExitStack() as following:
        subscriptions: list[RunSubscription] = []
        for request in requests_of(inbound):
            run = await context.server_state.start_run(request, stream=inbound.stream)
            # Follow each run before starting the next: a run without a follower would outlive a failure here.
            subscription = context.server_state.subscribe(run, context.wakeup.wake, whole=not inbound.stream)
            subscriptions.append(following.enter_context(subscription))
        source = ChoicesSource(dialect, inbound, subscriptions)
        if inbound.stream:
            await stream_from(context, dialect, inbound, source, context.server_state.config.hold_head_s)
            return
        source.take()
        while source.end is None:
            await context.wakeup.wait()
            source.take()
        await context.reply(await encode_end(dialect, inbound, source.end))


def requests_of(inbound: ClientRequest) -> Iterator[AnyRequest]:
    """Return one request per choice. Each request has its own ids, because a vendor accepts an idempotency key only
    once.
    """
    first = inbound.request
    yield first
    for nth, request in enumerate(inbound.choices, start=2):
        forwarded = dict(first.forwarded)
        if IDEMPOTENCY in forwarded:
            forwarded[IDEMPOTENCY] += f"-{nth}"
        yield msgspec.structs.replace(
            request,
            request_id=f"{first.request_id}_{nth}",
            parameters=first.parameters,
            caller=first.caller,
            policy=first.policy,
            forwarded=forwarded,
        )


@final
class ChoicesSource:
    """The frames of several runs, one run per choice."""

    def __init__(self, dialect: ServerDialect, inbound: ClientRequest, subscriptions: list[RunSubscription]) -> None:
        self.end: Finished | Failed | None = None
        self.adjusted: tuple[Adjustment, ...] | None = None
        self._inbound = inbound
        self._subscriptions = subscriptions
        self._order = FirstChoiceFirst()
        response_id = subscriptions[0].run.response_id
        self._encoders = [
            dialect.response_encoder(inbound._replace(choice=at), response_id) for at in range(len(subscriptions))
        ]

    @property
    def begun(self) -> bool:
        """See `FrameSource`."""
        return any(subscription.begun for subscription in self._subscriptions)

    def start(self) -> list[Frame]:
        """See `FrameSource`."""
        return [frame for encoder in self._encoders for frame in encoder.start()]

    def take(self) -> list[Frame]:
        """See `FrameSource`."""
        frames: list[Frame] = []
        for at, (subscription, encoder) in enumerate(zip(self._subscriptions, self._encoders, strict=True)):
            if subscription.end is not None:
                continue
            events = subscription.take()
            for event in events:
                if isinstance(event, Started):
                    self.adjusted = (*event.adjusted, _adjustment(self._inbound))
            if events and self._inbound.stream:
                frames += self._order.next(at, encoder.encode(events))
            if isinstance(subscription.end, Failed):
                self.end = subscription.end
                for other in self._subscriptions:
                    other.close()
                return frames
        ends = [subscription.end for subscription in self._subscriptions if isinstance(subscription.end, Finished)]
        if len(ends) < len(self._subscriptions):
            return frames
        whole = together([end.response for end in ends if end.response is not None], self._inbound)
        self.end = msgspec.structs.replace(ends[0], response=whole)
        return [*frames, *closing_frames(self._inbound, whole)] if self._inbound.stream else frames

    def shut(self, kind: FailureKind) -> None:
        """See `FrameSource`."""
        for subscription in self._subscriptions:
            if subscription.end is None:
                subscription.shut(kind)


def together(responses: list[LLMResponse], inbound: ClientRequest) -> LLMResponse:
    """Return the combined response: the fields of the first choice's response, with the usage of all."""
    spent = Spent()
    for each in responses:
        spent.add(each.usage, each.cost)
    first = responses[0]
    decision: JsonObject = {**first.decision, "calls": sum(count_calls(each.decision) for each in responses)}
    return msgspec.structs.replace(
        first,
        usage=spent.usage,
        cost=spent.cost,
        decision=decision,
        choices=tuple(responses[1:]),
        adjusted=(*first.adjusted, _adjustment(inbound)),
    )


def _adjustment(inbound: ClientRequest) -> Adjustment:
    """Return the note for the client that several requests were made for its parameter ``n``, or for its list of
    prompts.
    """
    first, second = inbound.request, inbound.choices[0]
    name = "n"
    if isinstance(first, CompletionRequest) and isinstance(second, CompletionRequest) and first.prompt != second.prompt:
        name = "prompt"
    return Adjustment(name, "emulated", f"{1 + len(inbound.choices)} requests")
