"""Decode and encode forms with files (``multipart/form-data``, RFC 7578), which some of OpenAI's endpoints use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from llm_protocol.codec.body import is_form
from llm_protocol.codec.json import WireError

MOST_FIELDS = 64
"""The most fields of a form. OpenAI accepts 16 images and a dozen parameters."""

MOST_HEAD_BYTES = 8 * 1024
"""The most bytes of the header of one field."""

MOST_BOUNDARY_BYTES = 72
"""The longest boundary, in bytes: 70 by RFC 2046, and the two dashes before it."""

_NAME = re.compile(r'[;\s]name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_FILE = re.compile(r'[;\s]filename="', re.IGNORECASE)
_TYPE = re.compile(r"^content-type:\s*([^\s;]+)", re.IGNORECASE | re.MULTILINE)
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_QUOTED = str.maketrans({"\\": "\\\\", '"': "%22", "\r": "%0D", "\n": "%0A"})
_UNQUOTED = {"%22": '"', "%0D": "\r", "%0A": "\n"}


class FormField(NamedTuple):
    """One field: a text, or a file with its media type."""

    name: str
    content: bytes
    media_type: str | None = None
    is_file: bool = False

    @property
    def text(self) -> str:
        """Return the characters of a text field. Raises `WireError`."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise WireError(f"{self.name} is not UTF-8") from None


def is_media_type(text: str) -> bool:
    """Whether ``text`` is a media type and nothing else. A client may write anything in a data URI."""
    return _MEDIA_TYPE.fullmatch(text) is not None


def read_form(body: bytes) -> list[FormField]:
    """The fields in their order. Raises `WireError`."""
    boundary = body.partition(b"\r\n")[0]
    if not is_form(body) or not 2 < len(boundary) <= MOST_BOUNDARY_BYTES:
        raise WireError("the form does not begin with its boundary")
    pieces = body[len(boundary) :].split(b"\r\n" + boundary, MOST_FIELDS + 1)
    if len(pieces) > MOST_FIELDS + 1:
        raise WireError(f"the form has more than {MOST_FIELDS} fields")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise WireError("the form ends before its last boundary")
    return [_field(piece) for piece in pieces[:-1]]


def _field(piece: bytes) -> FormField:
    head, end, content = piece.partition(b"\r\n\r\n")
    if not piece.startswith(b"\r\n") or not end or len(head) > MOST_HEAD_BYTES:
        raise WireError("a field of the form has no header, or one that is too long")
    said = head.decode("utf-8", "replace")
    name, kind = _NAME.search(said), _TYPE.search(said)
    if name is None:
        raise WireError("a field of the form has no name")
    return FormField(_unquoted(name[1]), content, kind and kind[1].lower(), is_file=_FILE.search(said) is not None)


def _unquoted(name: str) -> str:
    """Undo the escapes that browsers and `write_form` put into a name."""
    return re.sub(r"\\(.)|%22|%0D|%0A", lambda found: found[1] or _UNQUOTED[found[0]], name)


def write_form(fields: Iterable[FormField]) -> tuple[str, bytes]:
    """Return the content type and the body of a form. The boundary is random, so that no content can contain it.
    Names are quoted as in browsers, so that none ends its header. Media types that are not valid are left out.
    """
    boundary = os.urandom(16).hex()
    out: list[bytes] = []
    for at, field in enumerate(fields):
        media_type = field.media_type if field.media_type and is_media_type(field.media_type) else ""
        kind_of_file = media_type.partition("/")[2] or "bin"
        file = f'; filename="{at}.{kind_of_file}"' if field.is_file else ""
        kind = f"content-type: {media_type}\r\n" if media_type else ""
        name = field.name.translate(_QUOTED)
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n{kind}\r\n'
        out += (head.encode(), field.content, b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join((*out, f"--{boundary}--\r\n".encode()))
