"""What can be fuzzed: a check that must hold for any bytes, and bytes to begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).parent / "corpus"
"""``corpus/TARGET/*``: minimised inputs that once broke something."""


class Target(NamedTuple):
    """``check`` raises whatever it finds wrong. The first ``prefix`` bytes of its input choose what is checked, the
    rest is a stranger's.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    prefix: int = 0

    def corpus(self) -> list[Path]:
        """Its files in the corpus."""
        return sorted((CORPUS / self.name).glob("*"))
