"""Which wire an attempt takes, where a provider has two: OpenAI's chat API, and beside it the Responses API.

`ProviderWires.of` decides it, for everybody who has to know. A server that has no Responses API says so by the status
or the form of its first answer; the attempt then goes on over chat, and the server is not asked for it again for
`CHAT_SECONDS`. A
model that only the Responses API has, and that the table of models does not know, is learned in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

from llm_protocol.codec.chat_adapter import spoken
from llm_protocol.dialect import ClientDialect
from llm_protocol.events import Failed, Finished
from llm_protocol.model_rules import ModelRules
from llm_protocol.parameters import RequestTarget
from llm_protocol.requests import AnyRequest, ChatRequest
from llm_protocol.vendor import Vendor
from llm_protocol.wire_choice import (
    WireSetting,
    lacks_responses,
    needs_responses,
    prefers_responses,
    wants_responses,
)

CHAT_SECONDS: Final = 3600.0
"""How long a server that has no Responses API is not asked for it again: it may be a newer one by then."""

MAX_MODELS: Final = 256
"""Models of one provider that are remembered to need the Responses API; with one more, all are forgotten."""


@final
class ProviderWires:
    """The wires of one provider. ``responses`` is its client for the Responses API, with the ``target`` of that;
    ``None``: it has no such API. ``clock`` is monotonic, in seconds.

    `of` may be called from any thread, `learn` by the provider's own tasks only.
    """

    __slots__ = ("_chat_until", "_clock", "_needing", "_responses", "_setting", "_target", "usual")

    def __init__(
        self,
        usual: ClientDialect,
        responses: ClientDialect | None = None,
        target: RequestTarget | None = None,
        setting: WireSetting = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.usual = usual
        """What everything but chat goes over."""
        self._responses = None if setting == "chat" else responses
        self._target = target
        self._setting = setting
        self._clock = clock
        self._chat_until = -1.0
        self._needing: frozenset[str] = frozenset()

    @property
    def has_responses(self) -> bool:
        """Whether requests may go over the Responses API, as far as is known."""
        return self._responses is not None and (self._setting == "responses" or self._clock() >= self._chat_until)

    def of(self, request: AnyRequest) -> ClientDialect:
        """The wire that an attempt at ``request`` takes."""
        responses = self._responses
        if responses is None or self._target is None:
            return self.usual
        adapted = spoken(request, self.usual.request_types)
        if not isinstance(adapted, ChatRequest):
            return self.usual
        if self._setting == "responses":
            return responses
        if self._clock() < self._chat_until:
            return self.usual
        rule = self.usual.rules.of(request.model)
        is_taken = (
            request.model in self._needing
            or needs_responses(adapted, rule, self._target)
            or prefers_responses(adapted, rule)
        )
        return responses if is_taken else self.usual

    def counting(self, request: AnyRequest) -> ClientDialect:
        """The wire that the tokens of ``request`` are counted over. Of other servers' Responses API not even that is
        known, so they are not asked.
        """
        is_openais = self._target is not None and self._target.has_hosted_tools
        return self.of(request) if is_openais else self.usual

    def instead_of(self, tried: ClientDialect, end: Finished | Failed) -> ClientDialect | None:
        """The other wire, where an attempt over ``tried`` ended because it was the wrong one."""
        if self._responses is None or self._setting != "auto" or not isinstance(end, Failed):
            return None
        if tried is self._responses:
            return self.usual if lacks_responses(end.failure) else None
        return self._responses if wants_responses(end.failure) and self.has_responses else None

    def learn(self, worked: ClientDialect, model: str) -> None:
        """Only ``worked``, which `instead_of` gave, has answered for ``model``."""
        if worked is self.usual:
            self._chat_until = self._clock() + CHAT_SECONDS
        else:
            known = self._needing if len(self._needing) < MAX_MODELS else frozenset()
            self._needing = known | {model}

    def in_words(self, model: str) -> str:
        """Which wire chats with ``model`` take, as the end of a sentence; empty where it is as everywhere."""
        if self._responses is None:
            return "is asked over the chat API only" if self._setting == "chat" else ""
        if self._setting == "responses":
            return "is asked over the Responses API"
        if self._clock() < self._chat_until:
            return "is asked over the chat API: its server has no Responses API"
        rule = "responses" if model in self._needing else self.usual.rules.of(model).wire
        return _IN_WORDS.get(rule, "")


_IN_WORDS: Final = {
    "responses": "is asked over the Responses API",
    "responses_if_tools": "is asked over the Responses API where there are tools",
    "responses_if_tools_and_reasoning": "is asked over the Responses API where it reasons with tools",
}
"""By `ModelRule.wire`."""


def wires_of(
    vendor: Vendor, rules: ModelRules, setting: WireSetting = "auto", api_version: str | None = None
) -> ProviderWires:
    """The wires of a provider of ``vendor``; ``rules`` learn from it whether it has the Responses API."""
    usual, responses = vendor.client(rules, api_version), vendor.responses_client(rules)
    wires = ProviderWires(usual, responses, vendor.responses_target, setting)
    rules.has_responses = wires.has_responses
    return wires
