"""The whole API is shown before its first use, though most of it is imported on its first."""

from __future__ import annotations

import subprocess
import sys

import llm_runtime
from llm_protocol import events


def fresh(code: str) -> str:
    """What a program of its own prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True, text=True).stdout


def test_dir_shows_all_and_all_of_it_is_there() -> None:
    shown = fresh("import llm_runtime; print(*dir(llm_runtime))").split()
    assert {*llm_runtime.__all__, "aio", "sync", "__version__"} == set(shown)
    assert fresh("import llm_runtime as m; print(all(getattr(m, name) for name in dir(m)))") == "True\n"


def test_completion_and_help_show_what_was_not_used_yet() -> None:
    completed = "import llm_runtime, rlcompleter as r; print(r.Completer(vars()).complete('llm_runtime.open_r', 0))"
    assert fresh(completed).startswith("llm_runtime.open_runtime(")
    told = fresh("import llm_runtime, pydoc; print(pydoc.plain(pydoc.render_doc(llm_runtime)))")
    for name in ("open_runtime", "connect", "run_tools", "ResponseStream", "TextDelta"):
        assert name in told


def test_every_event_is_exported() -> None:
    kinds = {kind.__name__ for kind in events.Event.__args__}
    internal = {"Embedded", "FieldsAdded"}  # of embeddings, which are not streamed; of other wires
    assert kinds - internal <= set(llm_runtime.__all__)
