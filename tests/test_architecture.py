"""The layers, held: imports go one way, the kernel knows nothing of LLMs, and importing us is cheap."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "llm_protocol": ROOT / "protocol" / "llm_protocol",
    "llm_actors": ROOT / "actors" / "llm_actors",
    "llm_runtime": ROOT / "runtime" / "llm_runtime",
}
BELOW: dict[str, set[str]] = {
    "llm_protocol": set(),
    "llm_actors": {"llm_protocol"},
    "llm_runtime": {"llm_protocol", "llm_actors"},
}
LAYERS: tuple[set[str], ...] = (
    {"kernel", "threads", "deployment", "run", "file_problem", "sqlite_file"},
    {"redis", "testing", "store", "request_log"},
    {"redis_link"},
    {"transport", "limiter", "cache", "selector", "shared_responses"},
    {"provider"},
    {"catalog"},
    {"orchestrator"},
)
"""The parts of `llm_actors`. Each may import the layers before its own, and nothing else of its own layer."""
FILES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))
DOING_IO = {"asyncio", "concurrent", "logging", "multiprocessing", "select", "socket", "ssl", "subprocess", "threading"}


def name_of(file: Path) -> str:
    """``actors/llm_actors/kernel/ref.py`` -> ``llm_actors.kernel.ref``"""
    [folder] = [folder for folder in PACKAGES.values() if file.is_relative_to(folder)]
    parts = file.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> set[str]:
    """The dotted names of the modules that a file imports, relative ones made absolute."""
    found: set[str] = set()
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


MODULES = {name_of(file): file for file in FILES}


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def inside(*parts: str) -> Iterator[Path]:
    """The files of these packages."""
    found = [file for file in FILES if f"{name_of(file)}.".startswith(tuple(f"{part}." for part in parts))]
    assert found, f"there is no {parts}"
    yield from found


def test_imports_go_one_way() -> None:
    """llm_protocol <- llm_actors <- llm_runtime"""
    wrong = {
        name_of(file): other
        for own, below in BELOW.items()
        for file in inside(own)
        for other in imports(file)
        if other.partition(".")[0] in PACKAGES.keys() - below - {own}
    }
    assert wrong == {}


def module_imports(file: Path) -> set[str]:
    """The modules of ours that a file imports, also inside functions and for type checkers."""
    found: set[str] = set()
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found.update(name if (name := f"{source}.{alias.name}") in MODULES else source for alias in node.names)
    return found & MODULES.keys()


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or not: what can be reached from each of them and back."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = edges[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reach = {name: reached(name) for name in edges}
    found: list[set[str]] = []
    for name in sorted(edges):
        circle = {other for other in reach[name] if name in reach[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert circles(edges) == [{"b", "c"}, {"e"}]


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports for type checkers count: who needs another's types needs to know it. A package's ``__init__`` that lists
    its own modules does not, for they do not know it.
    """
    edges = {name: module_imports(file) - {name} for name, file in MODULES.items()}
    assert circles(edges) == []


def test_the_layers_of_llm_actors() -> None:
    rank = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    wrong = {
        f"{name} imports {other}"
        for name, file in MODULES.items()
        if name.startswith("llm_actors.")
        for other in module_imports(file)
        if other.startswith("llm_actors.")
        and (own := name.split(".")[1]) != (part := other.split(".")[1])
        and rank[part] >= rank[own]
    }
    assert wrong == set()


def test_the_protocol_does_no_io() -> None:
    allowed = {"llm_protocol", "msgspec", *sys.stdlib_module_names} - DOING_IO
    wrong = {name_of(file): used for file in inside("llm_protocol") if (used := tops(imports(file)) - allowed)}
    assert wrong == {}


def test_every_wire_has_the_same_files() -> None:
    """Why these: docs/decisions/0009-wire-folders.md."""
    always = {"__init__", "shapes", "content", "client", "stream", "server", "server_stream", "errors"}
    where_there_is_one = {
        "models",
        "embeddings",
        "images",
        "media",
        "choices",
        "choices_stream",
        "lenient",
        "compaction",
    }
    wires = PACKAGES["llm_protocol"] / "wires"
    folders = [folder for folder in wires.iterdir() if (folder / "__init__.py").exists()]
    assert len(folders) == 5
    for folder in folders:
        names = {file.stem for file in folder.glob("*.py")}
        assert names >= always, folder.name
        assert names <= always | where_there_is_one, folder.name


@pytest.mark.parametrize("part", ["llm_actors.kernel", "llm_actors.testing"])
def test_the_kernel_knows_nothing_of_llms(part: str) -> None:
    generic = ("llm_actors.kernel.", "llm_actors.testing.")
    wrong = {
        name_of(file): name
        for file in inside(part)
        for name in imports(file)
        if name.partition(".")[0] in PACKAGES and not f"{name}.".startswith(generic)
    }
    assert wrong == {}


def test_only_the_command_line_prints() -> None:
    printing = {
        name_of(file)
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert {name for name in printing if not name.startswith("llm_runtime.cli.")} == set()


ON_ASYNCIO = {f"llm_runtime.hosts.{name}" for name in ("asyncio_functions", "asyncio_loop", "on_asyncio")}


def test_there_is_one_event_loop_and_no_loose_thread() -> None:
    other = {"asyncio", "concurrent", "multiprocessing"}
    assert {name_of(file) for file in FILES if tops(imports(file)) & other} == ON_ASYNCIO
    starting = {
        name_of(file)
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"Thread", "threading.Thread"}
    }
    assert starting == {
        "llm_runtime.hosts.portal",  # the thread that has a host's runtime
        "llm_runtime.hosts.tool_threads",  # functions that a model calls, where there is no event loop
        "llm_runtime.telemetry.export",  # threads that end with the SDK's flush, which has no time limit
    }


def test_a_key_is_revealed_in_few_places() -> None:
    """Where the one header is written, to a provider, a proxy, a daemon and a receiver of traces, where a caller's key
    is turned into a digest, and what is an address.
    """
    revealing = {
        name_of(file)
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }
    addresses = {"llm_actors.redis", "llm_runtime.config.redis"}
    assert (
        revealing
        == {
            "llm_actors.provider.spec",
            "llm_actors.transport.proxy",
            "llm_runtime.remote.address",
            "llm_runtime.server.access",
            "llm_runtime.telemetry.export",
        }
        | addresses
    )


def test_the_limits_of_the_server_stand_in_one_place() -> None:
    """A reader finds all of them in `llm_runtime.server.limits`, as a user does on their page."""
    elsewhere = {
        f"{name_of(file)}.{node.targets[0].id}"
        for file in inside("llm_runtime.server")
        for node in tree_of(file).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if node.targets[0].id.isupper() and not node.targets[0].id.startswith("_")
        if isinstance(node.value, ast.BinOp)
        or (isinstance(node.value, ast.Constant) and isinstance(node.value.value, int | float))
        if name_of(file) != "llm_runtime.server.limits"
    }
    assert elsewhere == set()


def loaded_by(statement: str) -> set[str]:
    """The modules in a fresh interpreter after ``statement``."""
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environ)
    return set(done.stdout.split())


def test_no_public_class_name_has_two_meanings() -> None:
    """One word per thing (docs/glossary.md), across the three source roots."""
    places: dict[str, list[str]] = {}
    for file in FILES:
        for node in tree_of(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(file))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_importing_the_library_loads_nothing_heavy() -> None:
    loaded = loaded_by("import llm_runtime; llm_runtime.open_runtime")  # its modules are loaded when they are used
    heavy = {"trio_websocket", "wsproto", "prometheus_client", "httpx", "httpx2", "xllamacpp", "coredis"}
    heavy |= {"tomllib", "opentelemetry", "h2", "email", "html"}
    ours = {"llm_runtime.cli", "llm_runtime.server", "llm_runtime.local_model"}
    assert not loaded & {*heavy, *ours, "asyncio", "argparse", "difflib", "importlib.metadata", "sqlite3"}


def test_the_types_alone_need_no_trio() -> None:
    """A small client can import `llm_protocol` with msgspec alone."""
    loaded = loaded_by("import llm_protocol.requests, llm_protocol.response, llm_protocol.errors, llm_protocol.dialect")
    assert not loaded & {"trio", "h11", "ssl", "socket"}


def test_importing_changes_nothing_in_the_host_program() -> None:
    """No signal handler, no logging configuration, no thread."""
    code = (
        "import logging, signal, threading\n"
        "before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)\n"
        "import llm_runtime\n"
        "assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))\n"
        "assert logging.getLogger().handlers == []\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=30)
