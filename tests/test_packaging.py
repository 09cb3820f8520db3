"""What is shipped is what is in the tree: a wheel of three packages, and a checkout that makes its own environment."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = {"runtime": "llm_runtime", "actors": "llm_actors", "protocol": "llm_protocol"}


def tracked() -> set[str]:
    """The files below the source roots that git knows or would, as paths within a wheel."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *SOURCES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return {name.partition("/")[2] for name in done.stdout.splitlines()}


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed")
def test_the_wheel_holds_the_tracked_files_and_nothing_else(tmp_path: Path) -> None:
    """No .pth, no binary, equal to the git tree."""
    code = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-P", "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = archive.read(next(n for n in archive.namelist() if n.endswith("entry_points.txt"))).decode()
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert names == tracked()
    assert {Path(name).suffix for name in names} <= {".py", ".typed", ".json", ".lua", ".html", ".css", ".js"}
    assert "llm-runtime = llm_runtime.cli:main" in entry_points
    assert licences


def test_every_package_is_typed() -> None:
    assert all((ROOT / root / package / "py.typed").is_file() for root, package in SOURCES.items())


def names(requirements: list[str] | None) -> set[str]:
    return {re.split(r"[<>=!\[; ]", entry)[0].replace("-", "_") for entry in requirements or []}


def test_what_is_imported_is_declared() -> None:
    """A run-time import that is not in pyproject.toml works here and fails at a user's."""
    declared = names(PROJECT["project"]["dependencies"])
    with_trio = names(requires("trio")) & {"outcome"}
    optional = PROJECT["project"]["optional-dependencies"]
    extra = names(optional["redis"]) | names(optional["http2"])
    with_otel = {name.partition("_")[0] for name in names(optional["otel"])}
    of_any_version = {"backports", "compression"}  # backports-zstd until 3.14, which has it as compression.zstd
    allowed = {
        *declared, *extra, *with_otel, *with_trio, *of_any_version, *SOURCES.values(),
        *sys.stdlib_module_names,
    }  # fmt: skip
    pattern = re.compile(r"^\s*(?:from|import) ([A-Za-z_0-9]+)", re.MULTILINE)
    found = {
        name
        for root, package in SOURCES.items()
        for file in (ROOT / root / package).rglob("*.py")
        for name in pattern.findall(re.sub(r'""".*?"""', "", file.read_text(), flags=re.DOTALL))
    }
    assert found <= allowed


def test_the_local_models_engine_is_the_declared_one() -> None:
    from llm_runtime.local_model import ENGINE

    assert PROJECT["project"]["optional-dependencies"]["local"] == [ENGINE]


# -- the checkout's own environment, with a pip that installs nothing ----------------------------------------------

FAKE_PYTHON = """#!/bin/sh
# Stands for the environment's Python: notes what it is asked to do.
echo "$@" >> "{journal}"
case "$*" in
    *"-m pip"*) {pip} ;;
esac
"""


GROUPS = 'test = ["pytest>=9"]\nlint = ["ruff>=0.1"]\nbench = ["httpx2"]\n'


class Checkout:
    """A copy of ``bin/`` beside a small pyproject.toml; ``venv`` is replaced by one fake Python."""

    def __init__(self, folder: Path, pip: str = "exit 0") -> None:
        self.root = folder / "a check out"
        self.journal = folder / "journal"
        shutil.copytree(ROOT / "bin", self.root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "pyproject.toml").write_text("[dependency-groups]\n" + GROUPS)
        fake = folder / "modules"
        fake.mkdir(parents=True)
        script = FAKE_PYTHON.format(journal=self.journal, pip=pip)
        (fake / "venv.py").write_text(
            "import os, sys\n"
            "folder = os.path.join(sys.argv[1], 'bin')\n"
            "os.makedirs(folder)\n"
            "path = os.path.join(folder, 'python')\n"
            f"open(path, 'w').write({script!r})\n"
            "os.chmod(path, 0o755)\n"
        )
        self.environ = {**os.environ, "PYTHONPATH": str(fake), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, *arguments: str, program: str = "llm-runtime") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.root / "bin" / program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environ, check=False, timeout=30)

    def asked(self) -> list[str]:
        """What the environment's Python was asked since the last time."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        self.journal.unlink(missing_ok=True)
        return lines


PIP = "-m pip install --quiet --no-input --disable-pip-version-check"


def test_the_first_run_installs_and_the_second_is_silent(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    first = checkout.run("serve", "--port", "0")
    assert first.returncode == 0
    assert [line.partition(": ")[0] for line in first.stderr.splitlines()] == ["llm-runtime"] * 3
    assert checkout.asked() == [f"{PIP} --editable {checkout.root}", "-P -m llm_runtime.cli serve --port 0"]
    second = checkout.run("ask", "two words")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert checkout.asked() == ["-P -m llm_runtime.cli ask two words"]


def test_closed_standard_files_are_no_obstacle(tmp_path: Path) -> None:
    """`llm-runtime serve <&- >&- 2>&-`, as some service managers start it."""
    checkout = Checkout(tmp_path)
    for _ in range(2):
        closed = [
            "/bin/sh",
            "-c",
            'exec "$@" <&- >&- 2>&-',
            "sh",
            sys.executable,
            str(checkout.root / "bin" / "llm-runtime"),
        ]
        assert subprocess.run(closed, env=checkout.environ, check=False, timeout=30).returncode == 0
    assert checkout.asked()[-1] == "-P -m llm_runtime.cli"


def test_each_command_adds_what_it_needs(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.run()
    checkout.asked()
    done = checkout.run("tests/x.py", program="test")
    assert done.returncode == 0, done.stderr
    install, together, alone = checkout.asked()
    assert install == f"{PIP} pytest>=9"
    assert re.fullmatch(r"-P -m pytest -n [1-4] --dist worksteal -m not alone tests/x.py", together)
    assert alone == "-P -m pytest -m alone tests/x.py"
    checkout.run(program="test")
    asked = checkout.asked()
    assert asked[:2] == [f"{PIP} httpx2", f"{PIP} ruff>=0.1"]
    ran = [line.split()[2] for line in asked[2:-1]]
    assert sorted(ran[:4]) == ["mypy", "pyright", "ruff", "ruff"]  # beside each other
    assert ran[4:] == ["pytest", "pytest"]
    assert asked[-1].endswith("bin/make-prices --check")


@pytest.mark.parametrize("own", ["-n0", "-n 4", "--numprocesses=2", "-m alone", "--pdb", "--co"])
def test_who_says_how_to_run_the_tests_gets_one_run(tmp_path: Path, own: str) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.run("tests/x.py", *own.split(), program="test").returncode == 0
    assert checkout.asked()[-1] == f"-P -m pytest tests/x.py {own}"
    assert checkout.asked() == []


def test_a_changed_project_is_installed_anew(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.run()
    checkout.asked()
    (checkout.root / "pyproject.toml").write_text("[dependency-groups]\ntest = []\n")
    checkout.run()
    assert checkout.asked() == [f"{PIP} --editable {checkout.root}", "-P -m llm_runtime.cli"]


def test_a_moved_checkout_starts_over(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.run()
    checkout.root = checkout.root.rename(tmp_path / "elsewhere")
    done = checkout.run()
    assert done.returncode == 0
    assert "starting over" in done.stderr


def test_an_installation_that_was_cut_off_starts_over(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, pip="kill -9 $PPID")
    assert checkout.run().returncode == -9
    checkout.asked()
    healthy = Checkout(tmp_path / "other")
    checkout.environ = healthy.environ
    done = checkout.run("--version")
    assert done.returncode == 0
    assert "starting over" in done.stderr
    assert healthy.asked()[-1] == "-P -m llm_runtime.cli --version"


def test_a_pip_that_fails_is_one_line_and_tried_again(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, pip="echo Looking; echo 'ERROR: No matching distribution found for trio'; exit 1")
    for _ in range(2):
        done = checkout.run()
        assert done.returncode == 1
        assert "installing project failed: No matching distribution found for trio" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_without_a_network_that_is_what_is_said(tmp_path: Path) -> None:
    """pip's own last line blames the package."""
    said = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by NameResolutionError: /simple/trio/",
        "ERROR: Could not find a version that satisfies the requirement trio (from versions: none)",
        "ERROR: No matching distribution found for trio",
    )
    done = Checkout(tmp_path, pip="; ".join([*(f"echo '{line}'" for line in said), "exit 1"])).run()
    assert done.returncode == 1
    assert "the package index cannot be reached: NameResolutionError: /simple/trio/ (" in done.stderr.splitlines()[-1]


def test_an_environment_somebody_else_made_is_used_and_kept(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, pip="exit 1")
    own = checkout.root / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text(FAKE_PYTHON.format(journal=checkout.journal, pip="exit 0"))
    own.chmod(0o755)
    (checkout.root / ".venv" / "precious").touch()
    assert checkout.run().returncode == 0
    (checkout.root / "pyproject.toml").write_text("[dependency-groups]\n")
    assert checkout.run().returncode == 0
    assert (checkout.root / ".venv" / "precious").exists()


def test_two_at_once_install_once(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, pip="sleep 0.3")
    command = [sys.executable, str(checkout.root / "bin" / "llm-runtime")]
    both = [subprocess.Popen(command, env=checkout.environ, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=30)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    asked = checkout.asked()
    assert len([line for line in asked if "-m pip" in line]) == 1
    assert len([line for line in asked if "llm_runtime.cli" in line]) == 2
    assert any("waiting" in error for error in errors) or any(error == "" for error in errors)


def test_a_checkout_that_cannot_be_written_uses_the_users_cache(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    code = (
        "import os, sys; sys.path.insert(0, 'bin'); os.access = lambda *_: False\n"
        "import _bootstrap; print(_bootstrap.prepare('x', ['project']))"
    )
    environ = {**checkout.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout.root, capture_output=True, text=True, env=environ, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "cache" / "llm-runtime" / "venv-"))
    assert not (checkout.root / ".venv").exists()


def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    code = (
        "import sys; sys.version_info = (3, 9, 0); sys.path.insert(0, 'bin')\n"
        "import _bootstrap; _bootstrap.prepare('x', [])"
    )
    environ = {**checkout.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout.root, capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("x: needs Python 3.11 or newer; ")
    assert len(done.stderr.splitlines()) == 1


def test_the_bootstrap_is_readable_by_an_old_python() -> None:
    import ast

    for name in ("_bootstrap.py", "llm-runtime", "test", "bench"):
        ast.parse((ROOT / "bin" / name).read_text(), feature_version=(3, 8))
