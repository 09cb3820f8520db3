"""``llm-runtime config init | schema``: write a first configuration file, or the JSON Schema of configuration files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from llm_runtime.cli.terminal import FAILED, print_error, print_out, say
from llm_runtime.config import discover, installed_vendors


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Write a first configuration file, or the JSON Schema, and return the exit code."""
    if arguments.action == "schema":
        from llm_runtime.config.schema import json_schema

        print_out(json.dumps(json_schema(installed_vendors()), indent=2))
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
    text = initial_file(found, variables)
    for note in found.notes:
        say(f"llm-runtime: {note}")
    if output is None:
        print_out(text.removesuffix("\n"))
        return 0
    try:
        with open(output, "xb") as file:
            file.write(text.encode())
    except OSError as exc:
        return print_error(f"cannot write {output}: {exc.strerror}", FAILED)
    say(f"llm-runtime: wrote {output}; try: llm-runtime check --config {output}")
    return 0
