"""docs/adding-a-vendor.md, done: the package that it shows is built and stands beside llm-runtime."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import msgspec
import pytest

from llm_protocol.vendor import Vendor
from llm_runtime.fake import FakeProvider
from support import commands

TEXT = (Path(__file__).parents[2] / "docs" / "adding-a-vendor.md").read_text()
PROJECT, CONFIG, _ = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
MODULE, PROGRAM, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an environment that has the package, and nothing else, beside ours."""
    source, environment = tmp_path_factory.mktemp("acme-llm"), tmp_path_factory.mktemp("environment")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "acme_llm.py").write_text(MODULE)
    made = subprocess.run([sys.executable, "-P", "-c", BUILD, source], cwd=source, capture_output=True, check=True)
    with zipfile.ZipFile(source / made.stdout.decode().split()[-1]) as wheel:
        wheel.extractall(environment)
    return str(environment)


def test_every_column_is_told() -> None:
    for field in msgspec.structs.fields(Vendor):
        assert f"| `{field.name}` |" in TEXT


async def test_check_asks_it(installed: str, tmp_path: Path) -> None:
    async with FakeProvider(kind="openai") as fake:
        file = tmp_path / "c.toml"
        file.write_text(f'[server]\nport = 0\n{CONFIG}base_url = "{fake.url}/v1"\n')
        done = await commands.run("check", "--config", str(file), PYTHONPATH=installed, ACME_API_KEY="k")
        assert (done.code, done.err) == (0, "")
        assert re.search(r"^ok +provider +main\b", done.out, re.MULTILINE)
        assert [seen.path for seen in fake.journal.requests] == ["/v1/models"]
        without = await commands.run("check", "--config", str(file), ACME_API_KEY="k")
    assert without.code == 2
    assert 'providers.main.kind: there is no kind "acme"' in without.err


async def test_serve_finds_it_by_its_key(installed: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[server]\nport = 0\n")
    environ = {"PYTHONPATH": installed, "ACME_API_KEY": "k"}
    async with commands.running("serve", "--config", str(file), environ=environ) as process:
        assert process.stdout is not None
        assert (await process.stdout.receive_some()).startswith(b"ready http://")
        process.terminate()
        err = await commands.rest(process.stderr)
    assert " ".join(err.split()).count("provider acme (ACME_API_KEY is set)") == 1


async def test_the_fake_speaks_for_it(installed: str) -> None:
    environ = {"PYTHONPATH": installed}
    async with commands.running("fake-provider", "--port", "0", "--kind", "acme", environ=environ) as process:
        assert process.stdout is not None
        ready = (await process.stdout.receive_some()).decode()
        url = ready.removeprefix("ready ").strip()
        process.terminate()
        err = await commands.rest(process.stderr)
    assert re.search(rf"acme +{url}/acme/v1\n", err)


def test_the_program_runs(tmp_path: Path) -> None:
    """Here nothing is installed: the vendors that the program hands in must do."""
    (tmp_path / "acme_llm.py").write_text(MODULE)
    (tmp_path / "my.toml").write_text(CONFIG)
    body = textwrap.indent(PROGRAM, "    ").replace("...", 'print(rt.config.vendors["acme"].title)')
    program = f"import trio\n\nasync def main():\n{body}\n\ntrio.run(main)\n"
    environ = commands.environment({"PYTHONPATH": str(tmp_path), "ACME_API_KEY": "k"})
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environ, check=False)
    assert (done.stderr, done.stdout) == (b"", b"Acme\n")


async def test_a_package_that_cannot_be_loaded_is_one_line_and_2(installed: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "acme_llm.py").write_text("import no_such_module_anywhere\n")
    done = await commands.run("check", PYTHONPATH=f"{broken}:{installed}")
    assert done.code == 2
    assert "the entry point 'acme' (acme_llm:ACME) in llm_runtime.vendors cannot be loaded" in done.err
    assert "Traceback" not in done.err
