"""Reads keys from their sources: ``env:NAME``, ``file:PATH`` or ``cmd:COMMAND``, never from the configuration
itself.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_protocol.secret import Secret

MAX_KEY_BYTES = 16 * 1024
"""The most bytes of a key file. A larger file is a mistake."""

FORMS = 'write "env:NAME" (an environment variable) or "file:PATH"'

COMMAND = '"cmd:COMMAND" (the output of a command)'


class KeyReader:
    """Resolves references to `Secret`s. A failure raises a `ValueError` that names the variable or file, never the
    value. ``warnings`` collects warnings about allowed but unsafe settings.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._environ = environ
        self._folder = folder
        self.warnings: list[str] = []

    def read(self, reference: object) -> Secret:
        """Return the key of ``reference``. Relative paths start at the folder of the configuration file."""
        scheme, name = split_reference(reference)
        return self.from_environment(name) if scheme == "env" else self._from_file(name)

    def read_provider(self, reference: object) -> Secret:
        """Return the key of a provider, which may change: a file is read again later, and a command is not run yet."""
        scheme, name = split_reference(reference, ("env", "file", "cmd"))
        if scheme == "env":
            return self.from_environment(name)
        if scheme == "cmd":
            if not shlex.split(name):
                raise ValueError("the command for the key is empty")
            return Secret(source=f"cmd:{name}")
        return self._from_file(name, source=f"file:{self._folder / os.path.expanduser(name)}")

    def from_environment(self, name: str) -> Secret:
        """Return the key in the environment variable ``name``."""
        value = self._environ.get(name)
        if value is None:
            raise ValueError(f"the environment variable {name} is not set")
        return checked_key(value, f"the environment variable {name}")

    def _from_file(self, name: str, source: str | None = None) -> Secret:
        try:
            path = self._folder / os.path.expanduser(name)  # leaves ``~USER`` unchanged if there is no such user
            with path.open("rb") as file:
                mode = stat.S_IMODE(path.stat().st_mode)
                content = file.read(MAX_KEY_BYTES + 1)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "not a path"
            raise ValueError(f"cannot read the key file {name!r}: {reason}") from None
        if len(content) > MAX_KEY_BYTES:
            raise ValueError(f"the key file {name!r} is larger than {MAX_KEY_BYTES} bytes")
        if mode & stat.S_IROTH:
            self.warnings.append(f"the key file {name} can be read by every user of this machine; chmod 600 it")
        return checked_key(content.decode("ascii", "replace").strip(), f"the key file {name!r}", source)


def split_reference(reference: object, schemes: Sequence[str] = ("env", "file")) -> tuple[str, str]:
    """Split ``env:NAME`` into ``("env", NAME)``. Raises `ValueError` for any other text; the message does not contain
    the text, because it may be a key.
    """
    if isinstance(reference, str):
        scheme, colon, name = reference.partition(":")
        if colon and scheme in schemes and name.strip():
            return scheme, name.strip()
    raise ValueError(f"a key must not be written here: {FORMS}" + (f", or {COMMAND}" if "cmd" in schemes else ""))


def checked_key(value: str, where: str, source: str | None = None) -> Secret:
    """Return ``value`` as a `Secret`. ``where`` names its source for the `ValueError` if ``value`` is not valid in a
    header.
    """
    value = value.strip()
    if not value:
        raise ValueError(f"{where} is empty")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{where} is not a key: a key has printable ASCII characters only, and no spaces")
    return Secret(value, source=source)
