"""Several choices in one response: a run for each, executed concurrently, and sent to the client as one response."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import final

import msgspec

from llm_actors.orchestrator.spending import Spent
from llm_protocol.adjustments import Adjustment
from llm_protocol.content import JsonObject
from llm_protocol.dialect import Frame, Inbound, ServerDialect
from llm_protocol.events import Failed, Finished, Started
from llm_protocol.failures import FailureKind
from llm_protocol.requests import AnyRequest, CompletionRequest
from llm_protocol.response import LLMResponse
from llm_protocol.wire_headers import IDEMPOTENCY
from llm_protocol.wires.openai_chat.choices import closing_frames
from llm_runtime.server.request_context import RequestContext
from llm_runtime.server.run_response import calls_of, encode_end, stream_from
from llm_runtime.server.subscription import RunSubscription


async def respond_with_choices(exchange: RequestContext, dialect: ServerDialect, inbound: Inbound) -> None:
    """Start a run for each choice, and send the combined response. The first failure ends the response and the other
    runs; so does a disconnect of the client. Raises `LLMClientError` if a run is not accepted.
    """
    with ExitStack() as following:
        answers: list[RunSubscription] = []
        for request in requests_of(inbound):
            run = await exchange.service.start_run(request, stream=inbound.stream)
            # Follow each run before starting the next: a run without a follower would outlive a failure here.
            answer = exchange.service.answering(run, exchange.waker.wake, whole=not inbound.stream)
            answers.append(following.enter_context(answer))
        source = ChoicesSource(dialect, inbound, answers)
        if inbound.stream:
            await stream_from(exchange, dialect, inbound, source, exchange.service.config.hold_head_s)
            return
        source.take()
        while source.end is None:
            await exchange.waker.wait()
            source.take()
        await exchange.reply(await encode_end(dialect, inbound, source.end))


def requests_of(inbound: Inbound) -> Iterator[AnyRequest]:
    """One request per choice, each with ids of its own: a vendor serves an idempotency key only once."""
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
    """See `FrameSource`."""

    def __init__(self, dialect: ServerDialect, inbound: Inbound, answers: list[RunSubscription]) -> None:
        self.end: Finished | Failed | None = None
        self.adjusted: tuple[Adjustment, ...] | None = None
        self._inbound = inbound
        self._answers = answers
        self._held: list[Frame] | None = []
        response_id = answers[0].run.response_id
        self._encoders = [
            dialect.response_encoder(inbound._replace(choice=at), response_id) for at in range(len(answers))
        ]

    @property
    def begun(self) -> bool:
        """See `FrameSource`."""
        return any(answer.begun for answer in self._answers)

    def start(self) -> list[Frame]:
        """See `FrameSource`."""
        return [frame for encoder in self._encoders for frame in encoder.start()]

    def take(self) -> list[Frame]:
        """See `FrameSource`."""
        frames: list[Frame] = []
        for answer, encoder in zip(self._answers, self._encoders, strict=True):
            if answer.end is not None:
                continue
            events = answer.take()
            for event in events:
                if isinstance(event, Started):
                    self.adjusted = (*event.adjusted, _told(self._inbound))
            if events and self._inbound.stream:
                frames += self._in_order(answer, encoder.encode(events))
            if isinstance(answer.end, Failed):
                self.end = answer.end
                for other in self._answers:
                    other.close()
                return frames
        ends = [answer.end for answer in self._answers if isinstance(answer.end, Finished)]
        if len(ends) < len(self._answers):
            return frames
        whole = together([end.response for end in ends if end.response is not None], self._inbound)
        self.end = msgspec.structs.replace(ends[0], response=whole)
        return [*frames, *closing_frames(self._inbound, whole)] if self._inbound.stream else frames

    def _in_order(self, answer: RunSubscription, frames: list[Frame]) -> list[Frame]:
        """The frames that may be sent now. OpenAI's SDK cannot begin with another choice than the first, so frames of
        the others are held until there is one of the first.
        """
        if self._held is None:
            return frames
        if answer is not self._answers[0] or not frames:
            self._held += frames
            return []
        held, self._held = self._held, None
        return frames + held

    def shut(self, kind: FailureKind) -> None:
        """See `FrameSource`."""
        for answer in self._answers:
            if answer.end is None:
                answer.shut(kind)


def together(responses: list[LLMResponse], inbound: Inbound) -> LLMResponse:
    """The combined response: the first choice's, with the usage of all."""
    spent = Spent()
    for each in responses:
        spent.add(each.usage, each.cost)
    first = responses[0]
    decision: JsonObject = {**first.decision, "calls": sum(calls_of(each.decision) for each in responses)}
    return msgspec.structs.replace(
        first,
        usage=spent.usage,
        cost=spent.cost,
        decision=decision,
        members=tuple(responses),
        adjusted=(*first.adjusted, _told(inbound)),
    )


def _told(inbound: Inbound) -> Adjustment:
    """What is reported to the client about it."""
    first, second = inbound.request, inbound.choices[0]
    name = "n"
    if isinstance(first, CompletionRequest) and isinstance(second, CompletionRequest) and first.prompt != second.prompt:
        name = "prompt"
    return Adjustment(name, "emulated", f"{1 + len(inbound.choices)} requests")
