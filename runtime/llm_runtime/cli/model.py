"""``llm-runtime model install | path``: install the local model, or print the path of its file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from llm_runtime.cli.terminal import FAILED, print_error, print_out, say


def run(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    """Print the path of the model's file; with ``install``, install it first."""
    from llm_runtime.local_model import find_model
    from llm_runtime.local_model.install import InstallError, install

    if arguments.action == "install":
        say("llm-runtime: installing the local model (about 130 MB)")
        try:
            print_out(str(install()))
        except InstallError as exc:
            return print_error(exc, FAILED)
        return 0
    path = find_model()
    if path is None:
        return print_error("the local model is not installed; install it with: llm-runtime model install", FAILED)
    print_out(str(path))
    return 0
