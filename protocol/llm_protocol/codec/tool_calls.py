"""Assemble streamed tool calls: which piece belongs to which call, and what the arguments are.

One accumulator serves every wire. Pieces are joined by index, else by id, else by order. Real servers leave out any
of these, send ids or names again, and repeat arguments: the complete text once more, or in each piece everything sent
so far. Only this module handles that. A call whose arguments are not one JSON value ends the response with
`InvalidToolCall`: two concatenated texts are never taken for arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias, final

import msgspec

from llm_protocol.codec.items import TextBuffer
from llm_protocol.codec.json import WireError
from llm_protocol.content import JsonObject, Opaque, ToolCall
from llm_protocol.events import Event, ItemDone, ItemKind, ToolCallDelta
from llm_protocol.extra_fields import merge

CallExtra: TypeAlias = dict[str, JsonObject]

NULL_CHARACTERS = 16
"""Arguments up to this length are held back while they may still turn out to be ``null``."""


class InvalidToolCall(WireError):  # noqa: N818  (it says what is wrong, as its base does)
    """A tool call has no name, or arguments that are not one JSON value."""


def is_json(text: str) -> bool:
    """Whether ``text`` is exactly one JSON value. NaN and lone surrogates are accepted, as in all decoded JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
    except RecursionError:
        return False
    return True


def checked_call(call: ToolCall) -> ToolCall:
    """Return the call if it is valid. Missing arguments become ``{}``. Raises `InvalidToolCall`."""
    if call.arguments.strip() in ("", "null"):
        call = msgspec.structs.replace(call, arguments="{}")
    if not call.name:
        raise InvalidToolCall("a tool call has no name")
    if not is_json(call.arguments):
        raise InvalidToolCall("the arguments of a tool call are not one JSON value")
    return call


class CallPiece(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The piece of one call that an event contains. An empty string means that the event lacks the field.

    ``is_alone`` is false for a piece that came together with pieces of other calls, in one list.
    """

    index: int | None = None
    id: str = ""
    name: str = ""
    text: str = ""
    is_alone: bool = True


@final
class PendingCall:
    """One call, as far as it has arrived. A custom call's input is free text; a function's arguments are JSON."""

    __slots__ = (
        "_appended", "_dialect", "_pending", "_repeated", "_sent", "custom", "fields", "id", "is_done", "is_indexed",
        "item", "name", "signature",
    )  # fmt: skip

    def __init__(self, id_: str, dialect: str, *, custom: bool) -> None:
        self.id = id_
        self._dialect = dialect
        self.is_indexed = False
        self.is_done = False
        self.custom = custom
        self.name = ""
        self.signature: str | None = None
        self.fields: JsonObject = {}
        """The fields that only clients of this wire know."""
        self.item: int | None = None
        """The index of the call's item, once followers know of it."""
        self._appended = TextBuffer()
        self._repeated: str | None = ""
        """The arguments if every piece so far repeats them from the start; ``None`` once a piece did not."""
        self._pending = ""
        """Text that is held back, because it may be a repetition, or ``null``."""
        self._sent = False

    @property
    def extra(self) -> CallExtra | None:
        """The fields that only clients of this wire know, in the form of a part's ``extra``; ``None`` if there are
        none.
        """
        return {self._dialect: dict(self.fields)} if self.fields else None

    @property
    def has_arguments(self) -> bool:
        """Whether a piece of the arguments has arrived."""
        return bool(self._appended)

    def is_whole(self) -> bool:
        """Whether the arguments so far are one JSON value."""
        return not self.custom and self._final() is not None and self.has_arguments

    def add(self, text: str) -> None:
        """Add a piece of the arguments."""
        if not text:
            return
        if not self.custom and self._repeated is not None:
            may_repeat = self.has_arguments and text.startswith(self._repeated)
            self._repeated = text if may_repeat or not self.has_arguments else None
        self._appended.append(text)
        self._pending += text

    def tellable(self) -> str:
        """Return the part of the text that followers can receive and that was not returned before."""
        text = self._pending
        if self.custom or not text:
            return ""
        if self._sent and self._repeated is not None:
            return ""  # the last piece began like all before it: another piece, or the end, decides what it is
        if not self._sent and len(text) <= NULL_CHARACTERS and "null".startswith(text.strip()):
            return ""
        self._sent = True
        self._pending = ""
        return text

    def _final(self) -> str | None:
        text = self._appended.text()
        if text.strip() in ("", "null"):
            return "{}"
        if is_json(text):
            return text
        again = self._repeated
        return again if again is not None and is_json(again) else None

    def finish(self) -> tuple[str, str]:
        """Return the complete arguments, and the part of them that was not reported yet. Raises `InvalidToolCall`."""
        whole = self._final()
        if whole is None:
            raise InvalidToolCall("the arguments of a tool call are not one JSON value")
        appended = self._appended.text()
        begun = len(appended) - len(self._pending)
        return whole, whole[begun:] if self._sent else whole

    @property
    def text(self) -> str:
        """Return the arguments, or a custom call's input, as far as they have arrived."""
        return self._appended.text()


PartOfCall: TypeAlias = Callable[[PendingCall, str], ToolCall | Opaque]
"""A function that returns the complete part for a call. Its arguments are the call and the text of the call's
arguments.
"""


@final
class ToolCalls:
    """The calls of one response, in order.

    ``begin`` starts an item and returns its index; ``emit`` takes an event. ``prefix`` begins the ids of calls that
    arrived without one.
    """

    __slots__ = ("_begin", "_by_id", "_by_index", "_dialect", "_emit", "_prefix", "made")

    def __init__(
        self, prefix: str, dialect: str, begin: Callable[[ItemKind, PendingCall], int], emit: Callable[[Event], Any]
    ) -> None:
        self.made: list[PendingCall] = []
        self._by_id: dict[str, PendingCall] = {}
        self._by_index: dict[int, PendingCall] = {}
        self._prefix = prefix
        self._dialect = dialect
        self._begin = begin
        self._emit = emit

    def __bool__(self) -> bool:
        """Whether there is any call."""
        return bool(self.made)

    def add(
        self, piece: CallPiece, *, custom: bool = False, signature: str | None = None, extra: JsonObject | None = None
    ) -> PendingCall:
        """Add a piece, and report as much of its call as is certain. Returns the call."""
        call = self._find(piece) or self._make(piece, custom=custom)
        if call.is_done:
            return call  # a repetition of a call that is complete
        if piece.name and call.item is None and piece.name != call.name:
            call.name += piece.name
        if signature is not None:
            call.signature = signature
        if extra:
            merge(call.fields, extra)
        call.add(piece.text)
        self._tell_more(call)
        return call

    def _make(self, piece: CallPiece, *, custom: bool) -> PendingCall:
        self.announce()
        number = len(self.made)
        id_ = piece.id or f"{self._prefix}_{number}"
        call = PendingCall(id_ if id_ not in self._by_id else f"{id_}_{number}", self._dialect, custom=custom)
        call.is_indexed = piece.index is not None
        self.made.append(call)
        self._by_id[call.id] = call
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def _find(self, piece: CallPiece) -> PendingCall | None:
        """The call that a piece belongs to; ``None`` if it begins a new one."""
        known = self._by_id.get(piece.id) if piece.id else None
        if known is not None:
            is_other = bool(piece.name and known.name) and piece.name != known.name and known.is_whole()
            return None if is_other else known
        last = self.made[-1] if self.made else None
        is_bare = not (piece.id or piece.name)
        if piece.index is not None:
            same = self._by_index.get(piece.index)
            if same is not None:
                return None if _begins_anew(same, piece, is_indexed=True) else same
            # Some servers number a call only from its second piece on.
            return last if last is not None and is_bare and not last.is_indexed else None
        if last is None or is_bare:
            return last
        return None if not piece.is_alone or _begins_anew(last, piece, is_indexed=False) else last

    def announce(self) -> None:
        """Announce the calls whose names are complete. Call this when the next item begins: a name may arrive in
        pieces, but not after that.
        """
        for call in self.made:
            self._announce(call)

    def _announce(self, call: PendingCall) -> None:
        if call.item is None and call.name:
            call.item = self._begin("opaque" if call.custom else "tool_call", call)

    def _tell_more(self, call: PendingCall) -> None:
        if not call.has_arguments or not call.name:
            return
        self._announce(call)
        if call.item is not None and (text := call.tellable()):
            self._emit(ToolCallDelta(call.item, text))

    def close(self, part: PartOfCall, *, cut: bool, drop_last: bool = False) -> None:
        """End all calls. ``part`` returns the complete part of a call from the call and its arguments.

        ``cut``: the response hit a length limit. Then incomplete calls are left out, because half a call is never
        reported as one. Otherwise they raise `InvalidToolCall`. ``drop_last``: on this wire a truncated call looks
        complete, so the last call of a truncated response is left out.
        """
        for call in self.made:
            is_doubtful = drop_last and call is self.made[-1]
            if not (cut and (is_doubtful or not (call.name and call.is_whole()))):
                self.end(call, part)

    def end(self, call: PendingCall, part: PartOfCall) -> None:
        """End one call, on a wire that marks the end of calls. Raises `InvalidToolCall`."""
        if call.is_done:
            return
        if not call.name:
            raise InvalidToolCall("a tool call has no name")
        whole, rest = (call.text, "") if call.custom else call.finish()
        self._announce(call)
        assert call.item is not None
        if rest:
            self._emit(ToolCallDelta(call.item, rest))
        self._emit(ItemDone(index=call.item, part=part(call, whole)))
        call.is_done = True
        self._by_index = {index: other for index, other in self._by_index.items() if other is not call}


def _begins_anew(call: PendingCall, piece: CallPiece, *, is_indexed: bool) -> bool:
    """Whether a piece with the index of ``call``, or right behind it, begins another call.

    Servers repeat a name, change an id from piece to piece, or give all their calls the index 0.
    """
    if not piece.name:
        return bool(piece.id) and not is_indexed and call.is_whole()
    if not call.name:
        return False  # the name comes after the first arguments
    if call.is_whole():
        # The same once more, with the same index, is a repetition.
        return bool(piece.id) or not is_indexed or (piece.name, piece.text.strip()) != (call.name, call.text.strip())
    if call.has_arguments:
        return piece.name != call.name
    if not is_indexed:
        return bool(piece.id) or piece.name != call.name
    return bool(piece.id) and piece.name != call.name  # without an id it is more of the name
