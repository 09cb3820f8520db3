"""What the members of a request say, told beside its answer to the clients that asked for it.

The names have a prefix of their own, as Open Responses wants it for events that are not in its list. Clients that
parse every frame as one they know never see them, because nobody is sent them unasked.
"""

from __future__ import annotations

from typing import NamedTuple, final

import msgspec

from llm_protocol.content import JsonObject
from llm_protocol.events import MemberDelta, MemberDone, MemberEvent, MemberFailed, MemberStarted
from llm_protocol.text_buffer import TextBuffer

PREFIX = "llm-runtime:member"


class MemberEventFrame(NamedTuple):
    """The ``type`` of an event and its fields."""

    type: str
    fields: JsonObject


@final
class MemberEventEncoder:
    """Turns members' events into the API's. It keeps what each has said, to repeat it whole at its end."""

    def __init__(self) -> None:
        self._texts: dict[str, TextBuffer] = {}

    def told(self, event: MemberEvent) -> MemberEventFrame:
        """The event, as it is told."""
        match event:
            case MemberDelta(member=member, text=text):
                self._texts.setdefault(member, TextBuffer()).append(text)
                return MemberEventFrame(f"{PREFIX}.delta", {"member": member, "delta": text})
            case MemberStarted(member=member):
                self._texts[member] = TextBuffer()
                rest = {"request_id": event.request_id, "round": event.round}
                return MemberEventFrame(f"{PREFIX}.started", {"member": member, **rest})
            case MemberDone(member=member):
                text = self._texts.pop(member, TextBuffer()).text()
                rest = {"finish_reason": event.finish_reason, "usage": msgspec.to_builtins(event.usage)}
                return MemberEventFrame(f"{PREFIX}.done", {"member": member, "text": text, **rest, "cost": event.cost})
            case MemberFailed(member=member, failure=failure):
                self._texts.pop(member, None)
                error = {"code": failure.rule.code, "message": failure.message}
                return MemberEventFrame(f"{PREFIX}.failed", {"member": member, "error": error})
