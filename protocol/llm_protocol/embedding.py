"""One embedding: a sequence of floats that stays packed.

A list of Python floats takes 32 bytes per number and is as slow to free as to build: ten million of them block
everything else for 80 ms. Packed numbers are one object and become floats one by one as they are read.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, final, overload

import msgspec


class _EmbeddingMeta(msgspec.StructMeta, ABCMeta):
    """Lets a struct be a `Sequence`."""


_CODES = {4: "f", 8: "d"}


@final
class Embedding(msgspec.Struct, Sequence[float], metaclass=_EmbeddingMeta, frozen=True, gc=False):
    """The numbers of one embedding, immutable. Index, slice, iterate and hash it like a tuple of floats; it equals
    tuples and lists of the same numbers.

    ``data`` contains the numbers as little-endian floats of ``size`` bytes: 4 if the provider sent base64, 8 if it sent
    decimals. ``numpy.frombuffer(embedding.data, f"<f{embedding.size}")`` reads them without a copy. msgspec encodes
    it as an object of ``data`` (base64 in JSON) and ``size``; `tolist` returns plain numbers. Raises `ValueError` if
    ``data`` is not a whole number of floats.
    """

    data: bytes
    size: Literal[4, 8] = 4

    def __post_init__(self) -> None:
        if self.size not in _CODES or len(self.data) % self.size:
            raise ValueError(
                f"data is not a whole number of floats of size 4 or 8: {len(self.data)} bytes, size {self.size}"
            )

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Embedding:
        """Return the embedding of ``numbers``, without any loss."""
        return cls(_little_endian(array("d", numbers)), 8)

    def float32(self) -> bytes:
        """Return the numbers as little-endian float32. A number that is too large becomes infinite."""
        return self.data if self.size == 4 else _little_endian(array("f", self._numbers()))

    def tolist(self) -> list[float]:
        """All numbers, as a new list."""
        return list(self._numbers())

    def _numbers(self) -> memoryview[float]:
        data = self.data
        if sys.byteorder == "big":
            swapped = array(_CODES[self.size], data)
            swapped.byteswap()
            data = swapped.tobytes()
        return memoryview(data).cast("f" if self.size == 4 else "d")

    def __len__(self) -> int:
        return len(self.data) // self.size

    @overload
    def __getitem__(self, at: int) -> float: ...
    @overload
    def __getitem__(self, at: slice) -> Embedding: ...
    def __getitem__(self, at: int | slice) -> float | Embedding:
        numbers = self._numbers()
        if isinstance(at, slice):
            return Embedding(_little_endian(array(_CODES[self.size], numbers[at])), self.size)
        return numbers[at]

    def __iter__(self) -> Iterator[float]:
        return iter(self._numbers())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Embedding):
            return self._numbers() == other._numbers()
        if isinstance(other, tuple | list):
            return self.tolist() == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Embedding.of({self.tolist()})"


def _little_endian(numbers: array[float]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
