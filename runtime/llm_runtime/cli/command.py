"""Run a command line and return its exit code.

The exit code is 0 for success, 1 if a request failed, 2 if the command could not start because its arguments or its
configuration are invalid, and 141 if nothing reads stdout any more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from llm_actors.kernel import KernelError
from llm_protocol.errors import LLMClientError
from llm_runtime.cli.arguments import parse, parser
from llm_runtime.cli.terminal import (
    FAILED,
    UNREAD,
    UNUSABLE,
    OutputError,
    print_error,
    print_out,
    reserve_standard_files,
)
from llm_runtime.config import ConfigError


def run_command_line(argv: Sequence[str] | None = None) -> int:
    """Run one command. Each expected failure, and each mistake in a configuration, is printed as one line on stderr."""
    reserve_standard_files()
    try:
        arguments = parse(argv)
        if arguments.command is None and not arguments.version:
            parser().print_help(sys.stderr)
            return UNUSABLE
        return _print_version() if arguments.version else _run(arguments)
    except ConfigError as exc:
        for each in exc.all:
            print_error(each, UNUSABLE)
        return UNUSABLE
    except (LLMClientError, KernelError) as exc:
        return print_error(exc, FAILED)
    except OutputError as exc:
        return UNREAD if isinstance(exc.cause, BrokenPipeError) else print_error(exc, FAILED)


def _run(arguments: argparse.Namespace) -> int:
    # A command's module is imported when it is run: the others cost nothing.
    command = import_module(f"llm_runtime.cli.{arguments.command.replace('-', '_')}")
    code: int = command.run(arguments, os.environ)
    return code


def _print_version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        print_out(f"llm-runtime {version('llm-runtime')}")
    except PackageNotFoundError:
        print_out("llm-runtime (version unknown, because the package is not installed)")
    return 0
