"""The folder that a parent and its workers share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from llm_runtime.workers.place import LONGEST_FOLDER, make_folder, socket_path

WORKERS = 64
"""The most that the configuration allows."""


@pytest.fixture
def place() -> Iterator[str]:
    with TemporaryDirectory(prefix="llm-") as folder:
        yield folder


def below(place: str, size: int, letter: str = "f") -> str:
    """A folder in ``place`` whose path has so many bytes."""
    left = size - len(place) - 1
    letters = letter * (left // len(letter.encode()))
    folder = Path(place) / letters.ljust(left - len(letters.encode()) + len(letters), "f")
    folder.mkdir()
    assert len(os.fsencode(folder)) == size
    return str(folder)


@pytest.mark.parametrize("letter", ["f", "é"])
def test_the_socket_of_the_last_worker_fits_into_the_longest_folder(letter: str, place: str) -> None:
    base = below(place, LONGEST_FOLDER, letter)
    folder = make_folder({"RUNTIME_DIRECTORY": base})
    assert folder.startswith(base)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path(folder, WORKERS))


@pytest.mark.parametrize("letter", ["f", "é"])
def test_a_longer_folder_is_passed_over(letter: str, place: str) -> None:
    folder = make_folder({"RUNTIME_DIRECTORY": below(place, LONGEST_FOLDER + 1, letter), "XDG_RUNTIME_DIR": place})
    assert os.path.dirname(folder) == place
