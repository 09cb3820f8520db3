"""Tool calls while they are made: which piece belongs to which call, and when a call is whole.

OpenAI gives every call an index, and an id and a name in its first piece. Compatible servers give no index, or the same
to every call, or no id; what they do is told apart here.
"""

from __future__ import annotations

import msgspec

from llm_protocol.content import Opaque, ToolCall
from llm_protocol.text_buffer import TextBuffer
from llm_protocol.wires.openai_chat.shapes import ChatCall, signed


class PendingCall:
    """One call, as far as it came. A custom call's input is free text; a function's arguments are JSON."""

    __slots__ = ("_pieces", "custom", "id", "index", "name", "signature")

    def __init__(self, index: int, id_: str, *, custom: bool) -> None:
        self.index = index
        self.id = id_
        self.custom = custom
        self.name = ""
        self.signature: str | None = None
        self._pieces = TextBuffer()

    def add(self, call: ChatCall) -> str:
        """Take a piece into account; its text, if it has any."""
        self.name = self.name or call.name
        if call.extra_content is not None:
            self.signature = call.signature
        text = call.text
        if text:
            self._pieces.append(text)
        return text

    def whole(self) -> bool:
        """Whether the arguments are one complete JSON value."""
        try:
            msgspec.json.decode(self._pieces.text())
        except (ValueError, RecursionError):
            return False
        return not self.custom

    def part(self, dialect: str) -> ToolCall | Opaque:
        """The call, as it goes back in the next turn."""
        text = self._pieces.text()
        if not self.custom:
            return ToolCall(id=self.id, name=self.name, arguments=text, signature=self.signature)
        value = {"id": self.id, "type": "custom", "custom": {"name": self.name, "input": text}}
        return Opaque(dialect=dialect, value=signed(value, self.signature))


class Calls:
    """The calls of one answer, in order. ``prefix`` begins the ids of those that came without one."""

    def __init__(self, prefix: str) -> None:
        self.made: list[PendingCall] = []
        self._prefix = prefix
        self._at: dict[int, PendingCall] = {}

    def known(self, call: ChatCall) -> PendingCall | None:
        """The call that this piece belongs to, ``None`` if it begins a new one."""
        if call.index is None:
            last = self.made[-1] if self.made else None
            return last if last and (call.id == last.id or (call.id is None and not call.name)) else None
        found = self._at.get(call.index)
        if found is None or not call.name:
            return found
        # A name again: a server that repeats it in every piece, or one that counts all its calls 0.
        again = found.id != call.id if call.id else found.whole()
        return None if again else found

    def begin(self, call: ChatCall, index: int) -> PendingCall:
        """A new call, item ``index`` of the answer."""
        made = PendingCall(index, call.id or f"{self._prefix}_{index}", custom=call.custom is not None)
        self._at[len(self.made) if call.index is None else call.index] = made
        self.made.append(made)
        return made
