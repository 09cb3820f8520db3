"""``llm-runtime config init | schema``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from llm_runtime.cli.terminal import FAILED, print_error, say, write_all
from llm_runtime.config import discover, installed_vendors


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Write a first configuration file, or the JSON Schema, and return the exit code."""
    if arguments.action == "schema":
        from llm_runtime.config.schema import json_schema

        write_all(f"{json.dumps(json_schema(installed_vendors()), indent=2)}\n".encode())
        return 0
    return _init(arguments.output, environ)


def _init(output: str | None, environ: Mapping[str, str]) -> int:
    from llm_runtime.config.initial import initial_file
    from llm_runtime.local_model import is_installed

    vendors = installed_vendors()
    found = discover(environ, local=is_installed(), loopback=True, vendors=vendors)
    variables = {
        name: next(each for each in vendors[provider.kind].key_variables if environ.get(each, "").strip())
        for name, provider in found.providers.items()
        if provider.api_key is not None
    }
    text = initial_file(found, variables).encode()
    for note in found.notes:
        say(f"llm-runtime: {note}")
    if output is None:
        write_all(text)
        return 0
    try:
        with open(output, "xb") as file:
            file.write(text)
    except OSError as exc:
        return print_error(f"cannot write {output}: {exc.strerror}", FAILED)
    say(f"llm-runtime: wrote {output}; try: llm-runtime check --config {output}")
    return 0
