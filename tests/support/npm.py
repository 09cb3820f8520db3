"""Packages of the npm registry, each in a folder of its own, made on first use and kept in ``.envs/node/``."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from support.sdk import ENVIRONMENTS, install, locked

FOLDER = ENVIRONMENTS / "node"


@cache
def node_modules(name: str, *packages: str) -> Path:
    """The ``node_modules`` of the folder ``name``, which has ``packages`` (as ``name@version``). Skips the test where
    they cannot be had, or fails it: see `support.sdk.MUST_HAVE`.
    """
    folder = FOLDER / name
    stamp, wanted = folder / "packages.txt", "\n".join(packages)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with locked(f"node-{name}"):
        if not (stamp.is_file() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "package.json").write_text('{"private": true}')
            quiet = ("--no-audit", "--no-fund", "--loglevel=error")
            install(npm, "install", "--prefix", str(folder), *quiet, *packages)
            stamp.write_text(wanted)
    return folder / "node_modules"
