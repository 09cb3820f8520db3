"""docs/adding-a-vendor.md, done: the package that it shows is built and stands beside llm-runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from llm_protocol.content import Message
from llm_protocol.dialect import RateLimits, WireResponse
from llm_protocol.errors import UnsupportedError
from llm_protocol.failures import FailureKind
from llm_protocol.requests import ChatRequest, EmbeddingRequest, Parameters
from llm_protocol.vendor import Vendor
from llm_protocol.vendor_profile import COMPATIBLE
from llm_runtime.fake import FakeProvider
from support import commands

TEXT = (Path(__file__).parents[2] / "docs" / "adding-a-vendor.md").read_text()
for written, used in (
    ("acme", "madeup"),
    ("ACME", "MADEUP"),
    ("Acme", "Madeup"),
):  # somebody may follow the page to the word
    TEXT = TEXT.replace(written, used)
PROJECT, CONFIG, _ = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
MODULE, PROGRAM, PROFILE, WRAPPED, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an environment that has the package, and nothing else, beside ours."""
    source, environment = tmp_path_factory.mktemp("madeup-llm"), tmp_path_factory.mktemp("environment")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "madeup_llm.py").write_text(MODULE)
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
        done = await commands.run("check", "--config", str(file), PYTHONPATH=installed, MADEUP_API_KEY="k")
        assert (done.code, done.err) == (0, "")
        assert re.search(r"^ok +provider +main\b", done.out, re.MULTILINE)
        assert [seen.path for seen in fake.journal.requests] == ["/v1/models"]
        without = await commands.run("check", "--config", str(file), MADEUP_API_KEY="k")
    assert without.code == 2
    assert 'providers.main.kind: there is no kind "madeup"' in without.err


async def test_serve_finds_it_by_its_key(installed: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[server]\nport = 0\n")
    environ = {"PYTHONPATH": installed, "MADEUP_API_KEY": "k"}
    async with commands.running("serve", "--config", str(file), environ=environ) as process:
        assert process.stdout is not None
        assert (await process.stdout.receive_some()).startswith(b"ready http://")
        process.terminate()
        err = await commands.rest(process.stderr)
    assert " ".join(err.split()).count("provider madeup (MADEUP_API_KEY is set)") == 1


async def test_the_fake_speaks_for_it(installed: str) -> None:
    environ = {"PYTHONPATH": installed}
    async with commands.running("fake-provider", "--port", "0", "--kind", "madeup", environ=environ) as process:
        assert process.stdout is not None
        ready = (await process.stdout.receive_some()).decode()
        url = ready.removeprefix("ready ").strip()
        process.terminate()
        err = await commands.rest(process.stderr)
    assert re.search(rf"madeup +{url}/madeup/v1\n", err)


def test_the_program_runs(tmp_path: Path) -> None:
    """Here nothing is installed: the vendors that the program hands in must do."""
    (tmp_path / "madeup_llm.py").write_text(MODULE)
    (tmp_path / "my.toml").write_text(CONFIG)
    body = textwrap.indent(PROGRAM, "    ").replace("...", 'print(rt.config.vendors["madeup"].title)')
    program = f"import trio\n\nasync def main():\n{body}\n\ntrio.run(main)\n"
    environ = commands.environment({"PYTHONPATH": str(tmp_path), "MADEUP_API_KEY": "k"})
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environ, check=False)
    assert (done.stderr, done.stdout) == (b"", b"Madeup\n")


async def test_a_package_that_cannot_be_loaded_is_one_line_and_2(installed: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "madeup_llm.py").write_text("import no_such_module_anywhere\n")
    done = await commands.run("check", PYTHONPATH=f"{broken}:{installed}")
    assert done.code == 2
    assert "the entry point 'madeup' (madeup_llm:MADEUP) in llm_runtime.vendors cannot be loaded" in done.err
    assert "Traceback" not in done.err


def made_by(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_the_profile_says_what_it_lacks_and_where_its_limits_are() -> None:
    client = made_by(PROFILE)["MADEUP"].client()
    asked = Parameters(seed=1, temperature=0.5, stop=("END",), max_output_tokens=9, wire="openai_chat")
    chat = ChatRequest(model="m", messages=(Message.of("user", "hi"),), parameters=asked)
    adapted = client.adapt(chat)
    body = json.loads(client.encode_request(adapted.request, stream=False).body)
    assert [(each.parameter, each.action) for each in adapted.adjusted] == [("seed", "left_out")]
    assert (body["temperature"], body["stop"], body["max_completion_tokens"]) == (0.5, ["END"], 9)
    assert "seed" not in body
    biased = replace(asked, extra={"openai_chat": {"logit_bias": {"1": 2}}})
    with pytest.raises(UnsupportedError, match="Madeup has no parameter like logit_bias"):
        client.adapt(replace(chat, parameters=biased))
    limits = client.rate_limits((("madeup-limit-requests", "10"), ("madeup-reset-requests", "1m30s")))
    assert limits == RateLimits(requests_limit=10, requests_reset_s=90.0)


@pytest.mark.parametrize("name", ["reasoning_effort", "reasoning_budget", "stop", "user", "dimensions"])
def test_any_parameter_of_the_column_can_be_lacking(name: str) -> None:
    target = replace(COMPATIBLE.target, lacks=frozenset((name,)))
    client = Vendor(kind="madeup", title="Madeup", profile=replace(COMPATIBLE, target=target)).client()
    if name == "dimensions":
        with pytest.raises(UnsupportedError, match="Madeup has no parameter like dimensions"):
            client.adapt(EmbeddingRequest(model="m", inputs=("x",), dimensions=3))
        return
    values: dict[str, Any] = {"reasoning_effort": "high", "reasoning_budget": 10_000, "stop": ("END",), "user": "u"}
    asked = Parameters(**{name: values[name]})
    adapted = client.adapt(ChatRequest(model="m", messages=(Message.of("user", "hi"),), parameters=asked))
    assert getattr(adapted.request.parameters, name) in (None, ())
    expected = {"stop": "emulated", "reasoning_budget": "translated"}.get(name, "left_out")
    assert [(each.parameter, each.action) for each in adapted.adjusted] == [(name, expected)]


def test_a_wrapped_client_is_a_wire() -> None:
    wire = made_by(WRAPPED)["MADEUP_WIRE"]
    vendor = Vendor(kind="madeup", title="Madeup", wire=wire)
    client = vendor.client()
    assert client.name == vendor.server().name == "openai_chat"
    assert client.decode_error(WireResponse(420, (), b"")).kind is FailureKind.OVERLOADED
    assert not vendor.has_two_wires
