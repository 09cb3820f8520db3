"""How long things may take. All in seconds, all on by default, all settable per deployment and per request."""

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
