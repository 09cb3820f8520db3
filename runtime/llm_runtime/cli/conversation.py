"""The last conversation of ``llm-runtime ask`` or ``chat``, for ``-c``: a file that only its user can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

import msgspec

from llm_protocol.codec.json import encode_json
from llm_protocol.content import Message
from llm_runtime.cli.terminal import say
from llm_runtime.config import ConfigError
from llm_runtime.config.store import state_folder

CONVERSATION_BYTES = 32 * 1024 * 1024
"""The largest conversation that is kept, in bytes, attachments included."""


class KeptConversation(msgspec.Struct, frozen=True, kw_only=True):
    """The messages, including the system prompt, and the model."""

    model: str
    messages: tuple[Message, ...]


def begun(earlier: KeptConversation | None, system: str | None) -> list[Message]:
    """The messages so far. A new system prompt replaces the old one."""
    found = list(earlier.messages) if earlier else []
    if system:
        found = [Message.of("system", system), *(each for each in found if each.role != "system")]
    return found


def place(environ: Mapping[str, str]) -> Path:
    """Return the path of the file: below ``XDG_STATE_HOME``, by default ``~/.local/state``. Raises `ConfigError` if
    there is no such folder.
    """
    return state_folder(environ) / "conversation.json"


def load(environ: Mapping[str, str]) -> KeptConversation:
    """Return the last conversation. Raises `ConfigError` if there is none."""
    file = place(environ)
    try:
        return msgspec.json.decode(file.read_bytes(), type=KeptConversation)
    except FileNotFoundError:
        raise ConfigError("-c: there is no conversation to continue yet") from None
    except (OSError, msgspec.MsgspecError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is damaged; delete it"
        raise ConfigError(f"-c: cannot read {file}: {reason}") from None


def keep(model: str, messages: Sequence[Message], environ: Mapping[str, str]) -> None:
    """Save the conversation for ``-c``. A failure is reported on stderr, and raises nothing."""
    try:
        save(KeptConversation(model=model, messages=tuple(messages)), environ)
    except (OSError, ValueError, ConfigError) as exc:
        reason = f"{place(environ)}: {exc.strerror}" if isinstance(exc, OSError) else exc
        say(f"llm-runtime: the conversation was not saved, so -c cannot continue it: {reason}")


def save(conversation: KeptConversation, environ: Mapping[str, str]) -> None:
    """Replace the last conversation. Raises `OSError`, `ConfigError` as `place` does, and `ValueError` for more than
    `CONVERSATION_BYTES`.
    """
    data, file = encode_json(conversation), place(environ)
    if len(data) > CONVERSATION_BYTES:
        raise ValueError(f"the conversation has more than {CONVERSATION_BYTES // 1024 // 1024} MiB")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, temporary = mkstemp(dir=file.parent, prefix=".conversation")  # mode 0600; replaced atomically
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
