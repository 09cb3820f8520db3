"""docs/fake-provider.md says what is so."""

import re
from pathlib import Path

import msgspec

from llm_runtime.cli.arguments import parser
from llm_runtime.fake import FakeProvider, Fault, ScriptRule, load_script
from llm_runtime.fake.delivery import GZIP_BYTES, LINE_BYTES
from llm_runtime.fake.journal import MAX_BODY_BYTES, MAX_REQUESTS

TEXT = (Path(__file__).parents[2] / "docs" / "fake-provider.md").read_text()
[SCRIPT] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_is_a_script_and_shows_every_field(tmp_path: Path) -> None:
    file = tmp_path / "script.toml"
    file.write_text(SCRIPT)
    assert len(load_script(file)) == SCRIPT.count("[[rule]]")
    fields = {field.name for field in msgspec.structs.fields(ScriptRule)}
    assert {name for name in fields if not re.search(rf"^{name} =", SCRIPT, re.MULTILINE)} == set()


def test_every_fault_and_base_url_is_told() -> None:
    for fault in Fault:
        assert f"| `{fault}` |" in TEXT
    fake = FakeProvider(port=8090)
    for kind in fake.vendors:
        assert f"| `{kind}` | `{fake.base_url(kind)}` |" in TEXT


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"endless line ({LINE_BYTES // 1024**3} GiB)" in TEXT
    assert f"unpacks to {GZIP_BYTES // 1024**2} MiB" in TEXT
    assert f"the latest {MAX_REQUESTS} requests" in TEXT
    assert f"body ({MAX_BODY_BYTES // 1024} KiB)" in TEXT


def test_every_option_is_told() -> None:
    arguments = parser().parse_args(["fake-provider"])
    options = {name.replace("_", "-") for name in vars(arguments)} - {"version", "command"}
    assert {name for name in options if f"`--{name}" not in TEXT} == set()
