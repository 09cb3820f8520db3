"""Keys: a type that cannot be printed by accident, and the removal of keys from a vendor's messages, because some
vendors repeat the rejected key.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeAlias, final

from llm_protocol.failures import MESSAGE_LIMIT

Source: TypeAlias = "str | Callable[[], str | Awaitable[str]]"

SHORTEST = 4
"""The length, in characters, of the shortest key that is removed from a text. Shorter keys occur in ordinary words, and
are no secret.
"""


@final
class Secret:
    """Holds a key, so that the key is not printed by accident. ``repr``, ``str`` and ``format`` return ``Secret(***)``;
    pickling and copying into JSON are refused.

    `reveal` is for the one place that writes the key into a header. ``source`` says where a key that may change comes
    from: ``"file:PATH"``, ``"cmd:COMMAND"``, or a function of the program, which returns the key or an awaitable of the
    key.
    """

    __slots__ = ("_value", "source")

    def __init__(self, value: str = "", *, source: Source | None = None) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    @property
    def length(self) -> int:
        """The number of characters of the key."""
        return len(self._value)

    def matches(self, candidate: str) -> bool:
        """Whether ``candidate`` is this key. The time that the comparison takes does not show where the two differ."""
        return hmac.compare_digest(self._value.encode(), candidate.encode("utf-8", "surrogatepass"))

    def struck_from(self, text: str) -> str:
        """Return ``text``, which comes from a peer, with this key removed."""
        return text.replace(self._value, "[redacted]") if len(self._value) >= SHORTEST else text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __copy__(self) -> Secret:
        return self


# ---------------------------------------------------------------- keys in texts

_MARKED = r"""
      (?<=bearer\s) [^\s"',;]+
    | \b (?: sk | csk | pk | rk | gsk | xai | hf ) [-_] [a-z0-9_\-*.]{8,}
    | \b AIza [a-z0-9_\-*]{10,}
    | [a-z0-9_\-]{0,64} \*{4,} [a-z0-9_\-*]*
"""
"""Text that has the form of a key, or of a part of one."""

_UNMARKED = r"| \b (?=[a-z]*\d)(?=\d*[a-z]) [a-z0-9]{32,} \b"
"""Text that may be a key, or an id."""

_KEYS = re.compile(_MARKED + _UNMARKED, re.IGNORECASE | re.VERBOSE)
_KEYS_IN_NAMES = re.compile(_MARKED, re.IGNORECASE | re.VERBOSE)


def redact(text: str) -> str:
    """Return ``text`` with everything replaced that looks like a key, or like a part of one."""
    return _KEYS.sub("[redacted]", text)


def redact_name(name: str) -> str:
    """Redact a model's name or an id, which may look like a key."""
    return _KEYS_IN_NAMES.sub("[redacted]", name)


def error_message(text: str | None, fallback: str) -> str:
    """Return a vendor's error text in the form in which it is kept: one line, redacted, limited in length;
    ``fallback`` if there is none.
    """
    line = " ".join((text or "")[: 2 * MESSAGE_LIMIT].split())
    return redact(line)[:MESSAGE_LIMIT] or fallback
