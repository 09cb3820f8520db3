"""Settings of callers and operators: timeouts, limits, attempts. Times are in seconds; limits are on by default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
CacheSeconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time limits of one attempt at one provider.

    ``connect`` covers name lookup, TCP and TLS. ``first_token`` runs from the start of the attempt, connecting
    included, to the first content of a streamed response. ``idle`` is the longest silence after that: only content
    counts, so that a vendor's pings cannot keep a dead stream alive. ``total`` limits the whole attempt; it is the only
    one of the last three that applies to an unstreamed response, which is silent until it is complete.
    """

    connect: Seconds = 10.0
    """Seconds for name lookup, TCP and TLS."""
    first_token: Seconds = 60.0
    """Seconds from the start of an attempt to the first content of a streamed response."""
    idle: Seconds = 60.0
    """The longest silence, in seconds, between two pieces of content of a stream; pings do not count."""
    total: Seconds = 600.0
    """The longest duration of one whole attempt, in seconds."""


PROVIDER_WAIT_SECONDS = 30.0
CALLER_WAIT_SECONDS = 1.0
"""The default of `Limits.wait_s`."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The limits of one provider, or of one caller. ``None``: no limit of that sort.

    A rate applies to any 60 seconds, not on average.
    """

    requests_per_minute: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    """The most requests in any 60 seconds; omitted: no limit."""
    tokens_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    """The most tokens in any 60 seconds, in and out; omitted: no limit."""
    max_concurrency: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    """The most requests in progress at the same time; omitted: 256 for a provider (4 for the local model), no limit for
    a caller."""
    burst: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.25
    """The fraction of the per-minute limits that may be used within one second. The first request in a second is
    always allowed.
    """
    wait_s: Seconds | None = None
    """The longest wait for these limits, in seconds, including a vendor's Retry-After. If the wait would be longer, the
    request is refused at once; if the wait is unknown, after this time. Omitted: 30 for a provider's limits, 1 for a
    caller's.
    """

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return (self.requests_per_minute, self.tokens_per_minute, self.max_concurrency) != (None, None, None)


Megabytes = Annotated[float, msgspec.Meta(gt=0, le=256)]


class AnswerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The size limit of a response that arrives in one piece, by request type, in megabytes of 1,048,576 bytes. A
    larger one fails, and is not retried. A chat model's response with images has the limit of images.
    """

    chat: Megabytes = 3.0
    """The largest unstreamed chat response."""
    completion: Megabytes = 3.0
    """The largest unstreamed completion."""
    code_generation: Megabytes = 3.0
    """The largest unstreamed response to a code request."""
    embedding: Megabytes = 64.0
    """The largest response with embeddings."""
    image_generation: Megabytes = 64.0
    """The largest response with images, including an unstreamed response with images of a chat model."""

    def bytes_for(self, request_type: str) -> int:
        """The limit for requests of this type, in bytes."""
        return int(getattr(self, request_type) * 1024 * 1024)


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether complete responses are cached for equal requests, how many bytes of them, and for how long.

    Off by default: a caller who asks twice may want two responses. ``path`` adds a file that outlives the process and
    may be shared by several; its directory is made if it is missing. ``redis`` uses Redis in place of the file.
    """

    enabled: bool = False
    """Whether responses are cached, unless the request, route or provider says otherwise."""
    memory_mb: Annotated[float, msgspec.Meta(ge=0, le=65_536)] = 64.0
    """The most megabytes of cached responses in memory; 0: none."""
    path: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """A file that keeps the cached responses after the process has ended. Several processes may share it. Omitted:
    memory only.
    """
    file_mb: Annotated[float, msgspec.Meta(ge=1, le=1_048_576)] = 256.0
    """The largest size of the file, in megabytes. Its journal takes a few more megabytes."""
    ttl_s: CacheSeconds = 3600.0
    """The greatest age of a cached response that may be used, in seconds."""
    redis: bool = False
    """Whether cached responses are kept in `[redis]` in addition to memory, so that all processes with the same prefix
    can read them. `path` must then be omitted.
    """
    flight_wait_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 30.0
    """With `redis`: the longest time, in seconds, that a request waits for the response to an equal request of another
    process. Streamed requests and requests for embeddings do not wait.
    """


class Attempts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of attempts at one candidate, and the waits between them: random, from a window that starts at
    ``wait_min_s`` and doubles up to ``wait_max_s``. A vendor's Retry-After takes precedence.
    """

    max: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    """The most attempts at one candidate. While other candidates are left, a candidate gets at most two attempts."""
    wait_min_s: Seconds = 4.0
    """The shortest wait before a retry, in seconds. Each wait is random, between `wait_min_s` and an upper end:
    twice `wait_min_s`, doubled with each attempt, at most `wait_max_s`. If other candidates are left, the wait is
    shorter: at most 1 s.
    """
    wait_max_s: Seconds = 10.0
    """The longest wait before a retry, in seconds. A vendor's Retry-After takes precedence."""

    def __post_init__(self) -> None:
        if self.wait_min_s > self.wait_max_s:
            raise ValueError(f"wait_min_s ({self.wait_min_s:g}) is more than wait_max_s ({self.wait_max_s:g})")


class AttemptsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some of the `Attempts`, which replace those of the configuration."""

    max: Annotated[int, msgspec.Meta(ge=1, le=10)] | None = None
    wait_min_s: Seconds | None = None
    wait_max_s: Seconds | None = None

    def over(self, base: Attempts) -> Attempts:
        """Return ``base`` with the values that this patch sets. If only one end of the window is set, the other is
        adjusted.
        """
        least = self.wait_min_s or min(base.wait_min_s, self.wait_max_s or base.wait_min_s)
        most = self.wait_max_s or max(base.wait_max_s, least)
        return msgspec.structs.replace(base, max=self.max or base.max, wait_min_s=min(least, most), wait_max_s=most)


class TimeoutsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some of the `Timeouts`, which replace those of a provider."""

    connect: Seconds | None = None
    first_token: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None

    def over(self, base: Timeouts) -> Timeouts:
        """Return ``base`` with the values that this patch sets."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(base, **given)


Strategy: TypeAlias = Literal["single", "fallback", "race", "panel", "council", "best_of", "vote"]
Select: TypeAlias = Literal["score", "order", "cheapest", "fastest", "weighted", "sticky"]


class OwnNames(NamedTuple):
    """The names of the strategies and orderings that a program adds to those of the runtime."""

    strategies: tuple[str, ...] = ()
    orderings: tuple[str, ...] = ()


NO_OWN_NAMES = OwnNames()

OnBrokenStream: TypeAlias = Literal["error", "buffer", "continue", "restart"]
CacheMode: TypeAlias = Literal["off", "read", "refresh"]
Share: TypeAlias = Literal["all", "none"] | Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)]
"""The part of a request's ``context`` for a model: all of it, nothing, or the entries with these keys."""

MAX_MEMBERS = 16
"""The most members of one request, and the most samples of one model."""
Members = Annotated[int, msgspec.Meta(ge=1, le=MAX_MEMBERS)]

PRIORITIES = (0, 9)
"""The lowest and the highest priority number; 0 is served first, and 5 is the default."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a request is handled, by a route of the configuration or by the request's own ``llm_runtime`` object.
    ``None`` or empty means not set. The destination of a request (addresses, keys, headers) can never be set by a
    request.
    """

    candidates: Annotated[tuple[Name, ...], msgspec.Meta(max_length=32)] = ()
    """Models to choose from, as ``provider/model``. If ``candidates`` and ``members`` are omitted: as for the model
    `auto`, one model of each provider.
    """
    strategy: Strategy | Name | None = None
    """How models are used: one alone, one after another, or several together. Omitted: ``fallback``. Any other name is
    a strategy that the program adds.
    """
    select: Select | Name | None = None
    """The order of the candidates. ``order``: as written; ``score``: by the weights of `[selection]`; ``weighted``: by
    ``shares``; ``sticky``: a conversation stays with one candidate. Omitted: ``order`` if ``strategy`` is set to
    ``fallback``, otherwise ``score``. Any other name is an ordering that the program adds.
    """
    shares: dict[Name, Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]] | None = None
    """For ``weighted``: how often each candidate comes first, in proportion to the others; a candidate without a
    share comes last. Omitted: the better the score, the more often.
    """
    on_broken_stream: OnBrokenStream | None = None
    """What happens if a stream breaks after tokens were delivered. ``error`` (the default): the client gets an error;
    ``buffer``: nothing is delivered before the response is complete, so another candidate can be tried; ``continue``:
    another candidate continues the text; ``restart``: the text is withdrawn, and a new response begins.
    A streamed request must set ``restart`` itself; from its route, it means ``error``.
    """
    deadline_s: Seconds | None = None
    """The deadline of the whole request, in seconds after it was read. Waits on a WebSocket lane count. Omitted: 600.
    """
    timeouts: TimeoutsPatch | None = None
    """Timeouts that replace those of the providers, one by one."""
    attempts: AttemptsPatch | None = None
    """Values that replace those of `[attempts]`, one by one."""
    cache: CacheMode | None = None
    """``off``: the cache is not used; ``read``: a cached response is used, and a new response is stored; ``refresh``: a
    cached response is not used, but the new response is stored. Omitted: as in the providers' sections and `[cache]`.
    """
    strict: bool | None = None
    """Whether a request is refused if one of its parameters would be left out or changed; otherwise the change is
    reported.
    """
    hedge: bool | None = None
    """Whether a second candidate is called if the first is slower than usual."""
    priority: Annotated[int, msgspec.Meta(ge=PRIORITIES[0], le=PRIORITIES[1])] | None = None
    """The priority among the requests that wait for capacity: 0 is served first, 9 last; omitted: 5."""

    # The rest is for strategies with several models; see docs/orchestration.md.
    members: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_MEMBERS)] | Members | None = None
    """The members: models by name, or how many the selector chooses, of different vendors if possible. Omitted: all
    ``candidates``; without these, three models that the selector chooses.
    """
    quorum: Members | None = None
    """The number of answers that are enough; omitted: all members are awaited."""
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=3_600)] | None = None
    """Seconds that the other members may continue after `quorum` members have answered; omitted: 0."""
    member_deadline_s: Seconds | None = None
    """The time limit of each member, in seconds."""
    refill: bool | None = None
    """Whether a member that failed is replaced with another candidate, if one is left."""
    rounds: Annotated[int, msgspec.Meta(ge=0, le=4)] | None = None
    """How often the members of a council see the others' drafts and revise their own; omitted: 1."""
    samples: Members | None = None
    """The number of answers that ``best_of`` chooses from; omitted: 3."""
    synthesiser: Name | None = None
    """The model that combines the answers, or a method without a model: ``longest``, ``first``, ``merge_json``,
    ``none``. Omitted: the model of the first member that has answered, unless `[cross_model]` says otherwise.
    """
    template: Annotated[str, msgspec.Meta(max_length=16_384)] | None = None
    """The prompt of the synthesiser. It must contain ``{answers}``, and may contain ``{question}``. Omitted: a built-in
    prompt.
    """
    judge: Name | None = None
    """The model that chooses for ``best_of``; omitted: the model that wrote the answers."""
    share_context: Share | dict[Name, Share] | None = None
    """The part of the request's ``context`` that the members see: ``all``, ``none``, a list of keys of ``context``, or
    a table with one of these for each member. Omitted: ``none``.
    """
    share_knowledge: bool | None = None
    """Whether the answers of a conversation (``metadata.conversation_id``) are stored, and passed to models that are
    called later in the conversation.
    """
    max_cost: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] | None = None
    """The most US dollars for the whole request, all members and the synthesis included."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    """The most tokens for the whole request, in and out."""
    stream_members: bool | None = None
    """Whether the client also gets the streams of the members."""

    def __post_init__(self) -> None:
        if self.template is not None and "{answers}" not in self.template:
            raise ValueError("template must contain {answers}, the place where the answers are inserted")

    def models(self) -> list[tuple[str, str]]:
        """Return the name of each field that names models, with one of its models; a field with several models occurs
        several times. A synthesiser may be a method instead of a model.
        """
        members = self.members if isinstance(self.members, tuple) else ()
        named = [("candidates", self.candidates), ("members", members)]
        named += [(field, (model,)) for field in ("synthesiser", "judge") if (model := getattr(self, field))]
        return [(field, model) for field, models in named for model in models]

    def unknown_names(self, own: OwnNames) -> Iterator[tuple[str, str]]:
        """Yield each field that names a strategy or an ordering that does not exist, with a message that lists the
        existing names. ``own`` are the names that the program adds.
        """
        for field, value, known in (
            ("strategy", self.strategy, (*get_args(Strategy), *own.strategies)),
            ("select", self.select, (*get_args(Select), *own.orderings)),
        ):
            if value is not None and value not in known:
                from llm_protocol.codec.wording import suggestion  # imported only to explain an error

                yield field, f"not one of {', '.join(known)}{suggestion(value, known)}"

    def share(self, count: int) -> Policy:
        """The policy of one of ``count`` requests that divide the spending limits of this policy equally."""
        cost = None if self.max_cost is None else self.max_cost / count
        tokens = None if self.max_tokens is None else max(1, self.max_tokens // count)
        return msgspec.structs.replace(self, max_cost=cost, max_tokens=tokens)

    def over(self, base: Policy) -> Policy:
        """Return ``base`` with the values that this policy sets. Timeouts and attempts are replaced one by one. Of two
        spending limits the lower one applies.
        """
        set_fields = _set_fields(self)
        for patch in ("timeouts", "attempts"):
            if patch in set_fields and (other := getattr(base, patch)) is not None:
                set_fields[patch] = msgspec.structs.replace(other, **_set_fields(set_fields[patch]))
        for ceiling in ("max_cost", "max_tokens"):
            if ceiling in set_fields and (other := getattr(base, ceiling)) is not None:
                set_fields[ceiling] = min(set_fields[ceiling], other)
        return msgspec.structs.replace(base, **set_fields)


def _set_fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(struct).items() if value not in (None, ())}
