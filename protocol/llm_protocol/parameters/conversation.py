"""Put the conversation into the form that a vendor accepts. Pure; the content of the messages does not change. Results
are moved directly behind the turn with their calls. Names and ids are rewritten in accepted characters. If the vendor's
tool results have no field for a failure, the text of a result says that the tool failed. Empty texts are removed if the
vendor refuses them.

For images, documents and audio see `llm_protocol.parameters.media`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import is_
from typing import Final, NamedTuple

import msgspec

from llm_protocol.adjustments import Adjustment
from llm_protocol.codec.fields import unsupported
from llm_protocol.content import FAILED, Message, Opaque, Part, Text, ToolCall, ToolResult
from llm_protocol.parameters.media import fit_media, has_media
from llm_protocol.parameters.names import accepted, is_accepted
from llm_protocol.parameters.targets import FormLimits, RequestTarget


class Fitted(NamedTuple):
    """The fitted messages, and the changes that are reported to the caller."""

    messages: tuple[Message, ...]
    adjusted: tuple[Adjustment, ...] = ()


def fit_messages(
    messages: tuple[Message, ...],
    target: RequestTarget,
    names: Mapping[str, str],
    *,
    is_own: bool = False,
    reads_documents: bool = True,
    is_text: bool = False,
) -> Fitted:
    """Return the conversation within the limits of ``target``. ``names`` has the new name of each tool that was
    renamed. ``is_text``: there are no parts other than text. ``is_own`` and ``reads_documents``: see `fit_media`.
    Raises `UnsupportedError` if nothing remains of the conversation.
    """
    limits = target.limits
    adjusted: list[Adjustment] = []
    if not is_in_order(messages):
        messages = in_order(messages)
    if limits.call_id is not None:
        messages = _with_own_ids(messages)
    if names or limits.call_id is not None:
        messages = _renamed(messages, limits, names)
    if limits.speaker is not None:
        messages = tuple(_with_speaker(message, limits) for message in messages)
    if not is_text and not limits.errors_in_results:
        messages = tuple(map(_with_errors_in_text, messages))
    if not is_text and any(map(has_media, messages)):
        messages = fit_media(messages, target, adjusted, is_own=is_own, reads_documents=reads_documents)
    if not limits.empty_texts:
        messages = _without_empty(messages, blank=limits.blank_texts)
    if not limits.user_after_results:
        messages = tuple(_with_bridges(messages))
    return Fitted(messages, tuple(adjusted))


# ---------------------------------------------------------------- hosted tools


def without_hosted(messages: tuple[Message, ...], wire: str) -> Fitted:
    """Return the conversation without the blocks of another vendor's hosted tools. No other model can read them; the
    text that the model wrote from them remains. Content of the user is not changed.
    """
    if not any(isinstance(part, Opaque) for message in messages for part in message.content):
        return Fitted(messages)
    kept: list[Message] = []
    adjusted: list[Adjustment] = []
    calls: set[object] = set()
    for at, message in enumerate(messages):
        content = tuple(part for part in message.content if not _is_hosted(message, part, wire, calls))
        if len(content) == len(message.content):
            kept.append(message)
            continue
        adjusted.append(Adjustment(f"messages[{at}].content", "left_out"))
        if content:
            kept.append(msgspec.structs.replace(message, content=content))
    return Fitted(tuple(kept), tuple(adjusted))


_MEANT: Final = frozenset(("compaction", "compaction_summary", "context_compaction", "item_reference"))
"""Blocks that replace part of the conversation. If the vendor cannot read such a block, it does not get the request.
"""


def _is_hosted(message: Message, part: Part, wire: str, calls: set[object]) -> bool:
    """Whether ``part`` is a block of another wire's hosted tool, or the result of one of its ``calls``."""
    if not isinstance(part, Opaque) or part.dialect == wire or part.value.get("type") in _MEANT:
        return False
    call_id = part.value.get("call_id")
    if message.role == "assistant":
        calls.add(call_id)
        return True
    return message.role == "tool" and call_id is not None and call_id in calls


# ---------------------------------------------------------------- order


def is_in_order(messages: Sequence[Message]) -> bool:
    """Whether every message with results follows the assistant's turn or another message with results."""
    before = ""
    for message in messages:
        if message.role == "tool" and before not in ("assistant", "tool"):
            return False
        before = message.role
    return True


def in_order(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same messages, with each result directly behind the turn with its call. A result without a call keeps its
    place.
    """
    behind: dict[int, list[Message]] = {}
    open_calls: dict[str, int] = {}
    moved: set[int] = set()
    for at, message in enumerate(messages):
        if message.role == "assistant":
            open_calls |= {part.id: at for part in message.content if isinstance(part, ToolCall)}
        if message.role != "tool":
            continue
        turns = {open_calls.get(part.call_id) for part in message.content if isinstance(part, ToolResult)}
        if len(turns) == 1 and (turn := turns.pop()) is not None:
            behind.setdefault(turn, []).append(message)
            moved.add(at)
    found: list[Message] = []
    for at, message in enumerate(messages):
        if at not in moved:
            found += [message, *behind.get(at, ())]
    return tuple(found)


_BRIDGE: Final = "OK."
"""The text of an assistant turn that is inserted where a vendor demands one."""


def _with_bridges(messages: Sequence[Message]) -> Iterator[Message]:
    """The messages, with a turn of the assistant between tool results and a user's turn."""
    before = ""
    for message in messages:
        if (before, message.role) == ("tool", "user"):
            yield Message.of("assistant", _BRIDGE)
        yield message
        before = message.role


# ---------------------------------------------------------------- names and ids


def _renamed(messages: tuple[Message, ...], limits: FormLimits, names: Mapping[str, str]) -> tuple[Message, ...]:
    ids: Mapping[str, str] = {}
    if (limit := limits.call_id) is not None:
        found = dict.fromkeys(_call_ids(messages))
        if not all(is_accepted(each, limit) for each in found):
            ids = accepted(found, limit)
    if not names and not ids:
        return messages
    return tuple(
        msgspec.structs.replace(message, content=tuple(_with_names(part, names, ids) for part in message.content))
        if message.role in ("assistant", "tool")
        else message
        for message in messages
    )


def _with_own_ids(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages, in which each call has its own id: some servers number the calls of every response from 0. A
    result belongs to the latest call with its id; of several calls in one turn, to the first without one.
    """
    given = [part.id for message in messages for part in message.content if isinstance(part, ToolCall)]
    if len(set(given)) == len(given):
        return messages
    taken = set(given)
    seen: set[str] = set()
    numbers: dict[str, int] = {}  # where to go on counting, so that many equal ids take linear time
    open_ids: dict[str, list[str]] = {}

    def own(part: Part) -> Part:
        match part:
            case ToolCall(id=id_):
                new, number = id_, numbers.get(id_, 2)
                while new in seen or (new != id_ and new in taken):
                    new, number = f"{id_}_{number}", number + 1
                numbers[id_] = number
                seen.add(new)
                open_ids.setdefault(id_, []).append(new)
                return msgspec.structs.replace(part, id=new)
            case ToolResult(call_id=id_) if len(open_ids.get(id_, ())) > 1:
                return msgspec.structs.replace(part, call_id=open_ids[id_].pop(0))
            case ToolResult(call_id=id_) if id_ in open_ids:
                return msgspec.structs.replace(part, call_id=open_ids[id_][0])
            case _:
                return part

    found: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            for part in message.content:
                if isinstance(part, ToolCall):
                    open_ids.pop(part.id, None)
        found.append(msgspec.structs.replace(message, content=tuple(map(own, message.content))))
    return tuple(found)


def _call_ids(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        for part in message.content:
            if isinstance(part, ToolCall):
                yield part.id
            elif isinstance(part, ToolResult):
                yield part.call_id


def _with_names(part: Part, names: Mapping[str, str], ids: Mapping[str, str]) -> Part:
    match part:
        case ToolCall(id=id_, name=name) if id_ in ids or name in names:
            return msgspec.structs.replace(part, id=ids.get(id_, id_), name=names.get(name, name))
        case ToolResult(call_id=id_, name=name) if id_ in ids or name in names:
            short = None if name is None else names.get(name, name)
            return msgspec.structs.replace(part, call_id=ids.get(id_, id_), name=short)
        case _:
            return part


def _with_speaker(message: Message, limits: FormLimits) -> Message:
    limit, name = limits.speaker, message.name
    if name is None or limit is None or is_accepted(name, limit):
        return message
    return msgspec.structs.replace(message, name=accepted((name,), limit)[name])


# ---------------------------------------------------------------- failed tools

_ERROR: Final = "Error: "
"""The beginning of the text of a failed tool."""


def _with_errors_in_text(message: Message) -> Message:
    if not any(isinstance(part, ToolResult) and part.is_error for part in message.content):
        return message
    return msgspec.structs.replace(message, content=tuple(map(_with_error_in_text, message.content)))


def _with_error_in_text(part: Part) -> Part:
    """Mark the text of a result whose tool failed. A text that begins with the mark is not changed."""
    if not isinstance(part, ToolResult) or not part.is_error:
        return part
    if part.text.lstrip().lower().startswith(_ERROR.strip().lower()):
        return part
    content = list(part.content)
    if not part.text.strip():
        content = [Text(_ERROR + FAILED), *(each for each in content if not isinstance(each, Text))]
    else:
        at, text = next((at, each) for at, each in enumerate(content) if isinstance(each, Text))
        content[at] = msgspec.structs.replace(text, text=_ERROR + text.text)
    return msgspec.structs.replace(part, content=tuple(content))


# ---------------------------------------------------------------- empty texts


def _without_empty(messages: tuple[Message, ...], *, blank: bool) -> tuple[Message, ...]:
    """The messages without empty texts, and without turns that contain nothing else. With ``blank``, texts of white
    space only are not empty.
    """
    kept: list[Message] = []
    for message in messages:
        content = tuple(part for part in message.content if not _is_empty(part, blank=blank))
        if content:
            kept.append(message if content == message.content else msgspec.structs.replace(message, content=content))
    if not any(message.role not in ("system", "developer") for message in kept):
        raise unsupported("messages", "messages are empty, except for system messages: the vendor refuses this")
    return messages if len(kept) == len(messages) and all(map(is_, kept, messages)) else tuple(kept)


def _is_empty(part: Part, *, blank: bool) -> bool:
    if not isinstance(part, Text) or part.signature is not None:  # a signature may stand alone
        return False
    return not (part.text if blank else part.text.strip())
