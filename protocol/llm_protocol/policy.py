"""What a caller or an operator may decide: bounds, attempts. Times are in seconds; every bound is on by default."""

from __future__ import annotations

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds of one attempt at one deployment.

    ``connect`` covers name lookup, TCP and TLS. ``first_token`` runs from the start of the attempt, connecting
    included, to the first content of a streamed answer. ``idle`` is the longest silence after that: only content
    counts, so that a vendor's pings cannot keep a dead stream alive. ``total`` bounds the whole attempt; it is the
    only one of the last three that a whole (unstreamed) answer knows, because such an answer is silent while it is
    made.
    """

    connect: Seconds = 10.0
    first_token: Seconds = 60.0
    idle: Seconds = 60.0
    total: Seconds = 600.0


class Attempts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often one deployment is asked, and how long is waited between: uniformly from a window that starts at
    ``wait_min_s`` and doubles up to ``wait_max_s``. Vendors that say when to come back are believed instead.
    """

    max: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    wait_min_s: Seconds = 4.0
    wait_max_s: Seconds = 10.0

    def __post_init__(self) -> None:
        if self.wait_min_s > self.wait_max_s:
            raise ValueError(f"wait_min_s ({self.wait_min_s:g}) is more than wait_max_s ({self.wait_max_s:g})")
