"""The command line. Each command is a module, which is imported only when the command is run."""

from collections.abc import Sequence

from llm_runtime.cli.terminal import INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: that of `run_command_line`, or `INTERRUPTED` for Ctrl-C."""
    try:
        # Imported here: Ctrl-C during this import, which takes a tenth of a second, would otherwise print a traceback.
        from llm_runtime.cli.command import run_command_line

        return run_command_line(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
