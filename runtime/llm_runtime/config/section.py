"""The base of all sections of the configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Line = Annotated[str, Meta(min_length=1, max_length=1024)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the sections: frozen, and unknown keys are errors."""
