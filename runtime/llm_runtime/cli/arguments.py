"""The command-line arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from llm_protocol.codec.wording import suggestion


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. Each command is a module of this package, with a function ``run``."""
    top = argparse.ArgumentParser(
        prog="llm-runtime", description="A supervised runtime for LLM calls.", allow_abbrev=False
    )
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    _serve(commands.add_parser("serve", help="run the daemon", allow_abbrev=False))
    _ask(commands.add_parser("ask", help="ask one question and stream the response", allow_abbrev=False))
    _chat(commands.add_parser("chat", help="chat in the terminal", allow_abbrev=False))
    _models(commands.add_parser("models", help="list the models and routes", allow_abbrev=False))
    _explain(commands.add_parser("explain", help="show which deployments would serve a model", allow_abbrev=False))
    _top(commands.add_parser("top", help="watch a running daemon", allow_abbrev=False))
    _spend(commands.add_parser("spend", help="show the spending, from the ledger", allow_abbrev=False))
    _trace(commands.add_parser("trace", help="show what happened to a request", allow_abbrev=False))
    _replay(commands.add_parser("replay", help="send a logged request again", allow_abbrev=False))
    _check(
        commands.add_parser("check", help="check the configuration and everything that it names", allow_abbrev=False)
    )
    _reload(commands.add_parser("reload", help="make a daemon reload its configuration", allow_abbrev=False))
    _deploy(commands.add_parser("deploy", help="check a configuration and make a daemon reload it", allow_abbrev=False))
    _config(
        commands.add_parser(
            "config", help="write a first configuration, or the JSON Schema of configurations", allow_abbrev=False
        )
    )
    _fake_provider(
        commands.add_parser("fake-provider", help="serve scripted responses and faults for tests", allow_abbrev=False)
    )
    _model(commands.add_parser("model", help="install or find the local model", allow_abbrev=False))
    return top


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of a command line. Exits with 2, and a hint, for options that do not exist."""
    top = parser()
    arguments, unknown = top.parse_known_args(argv)
    if unknown:
        of_command = _options(top, arguments.command)
        hints = filter(None, (suggestion(each, of_command) for each in unknown if each.startswith("-")))
        top.error(f"unrecognized arguments: {' '.join(unknown)}{next(hints, '')}")
    return arguments


def _options(top: argparse.ArgumentParser, command: str | None) -> list[str]:
    commands = next(each for each in top._actions if isinstance(each, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices.get(command or "", top)
    return list(found._option_string_actions)


def _serve(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Run the daemon. Once it accepts requests it prints one line on stdout: ready URL, such as ready "
        "http://127.0.0.1:8080. The first SIGTERM or Ctrl-C lets responses in progress finish; the second ends them at "
        "once."
    )
    _common(command)
    command.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    command.add_argument("--port", type=_port, help="port to listen on, 0 for any free one (default 8080)")
    command.add_argument("--workers", type=_workers, help="processes that share the work, 1 to 64 (default 1)")
    command.add_argument(
        "--insecure-no-tls",
        action="store_true",
        help="listen beyond loopback without TLS, because a proxy in front provides it",
    )
    command.set_defaults(log_level="info")


def _ask(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Ask one question; the response is streamed to stdout. Piped input is appended to the question. With --url (or "
        "LLM_RUNTIME_URL) a running daemon serves the request, with the key in LLM_RUNTIME_KEY if it needs one; "
        "otherwise this process does."
    )
    command.add_argument("question", nargs="*", help="the question")
    _conversation(command)
    command.add_argument(
        "-a",
        "--attachment",
        action="append",
        default=[],
        metavar="FILE|URL",
        help="attach an image, a recording, a PDF or a text; by URL only an image or a PDF (repeatable)",
    )
    command.add_argument("--schema", help='respond in JSON: a JSON schema, a file with one, or "name, age int"')
    command.add_argument("--json", action="store_true", help="print the whole response as one JSON object")


def _chat(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Chat in the terminal; responses are streamed. Ctrl-C stops a response, not the chat; exit, quit or "
        "Ctrl-D ends the chat. !multi begins a text of several lines, !end ends it. With --url (or LLM_RUNTIME_URL) a "
        "running daemon serves the requests, with the key in LLM_RUNTIME_KEY if it needs one; otherwise this process "
        "does."
    )
    _conversation(command)


def _conversation(command: argparse.ArgumentParser) -> None:
    _common(command)
    _daemon(command)
    whom = command.add_mutually_exclusive_group()
    whom.add_argument("-m", "--model", default="", help="provider/model, a model, or auto (default)")
    whom.add_argument(
        "--route",
        metavar="NAME",
        help="a route of the configuration; if it uses several models, ask shows each answer",
    )
    command.add_argument("-s", "--system", help="the system prompt")
    command.add_argument(
        "-c", "--continue", dest="continued", action="store_true", help="continue the last conversation, with its model"
    )
    command.add_argument(
        "-o",
        "--option",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="an option of the request, such as: temperature 0 (repeatable)",
    )
    command.add_argument(
        "-n", "--no-log", action="store_true", help="do not save the conversation, so -c cannot resume it"
    )
    command.set_defaults(log_level="warning")


def _models(command: argparse.ArgumentParser) -> None:
    command.description = (
        "List the names that requests can use, one per line: auto, the routes, and the models of each provider. With "
        "--url (or LLM_RUNTIME_URL), list the names that the key in LLM_RUNTIME_KEY may use at a running daemon."
    )
    _common(command)
    _daemon(command)
    command.add_argument("--json", action="store_true", help="print the models of each provider as one JSON object")
    command.set_defaults(log_level="warning")


def _explain(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Show the deployments that would be tried for a model, in order, and why. No model is called. With --url (or "
        "LLM_RUNTIME_URL) a running daemon explains, with its measurements."
    )
    _common(command)
    command.add_argument("model", nargs="?", default="auto", help="provider/model, a model, a route, or auto (default)")
    _daemon(command)
    command.set_defaults(log_level="warning")


def _top(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Watch a running daemon: requests, providers, failures, callers and cost. Ctrl-C ends it. With --once, or if "
        "stdout is not a terminal, print the numbers once. The key is taken from LLM_RUNTIME_KEY."
    )
    _daemon(command, "address of the daemon (default: LLM_RUNTIME_URL, or http://127.0.0.1:8080)")
    command.add_argument("--once", action="store_true", help="print the numbers once")
    command.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="seconds between updates (default 2)"
    )
    command.set_defaults(log_level="warning", log_format="text")


def _spend(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Show the spending, from the ledger in the store's file ([store] in the configuration, else the default path). "
        "With --url (or LLM_RUNTIME_URL), a running daemon reports the spending: of all callers if the key in "
        "LLM_RUNTIME_KEY has admin = true, otherwise of its caller."
    )
    _common(command)
    command.add_argument(
        "--by", choices=["key", "team", "model", "route", "day"], default="key", help="what to group by (default key)"
    )
    command.add_argument(
        "--since", metavar="TIME", help="only since this day or time (UTC): 2026-01-31 or 2026-01-31T12:00:00Z"
    )
    _daemon(command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="write comma-separated values")
    form.add_argument("--json", action="store_true", help="write one JSON object")
    command.set_defaults(log_level="warning")


def _trace(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Show what happened to a request, step by step: waits, attempts, hedges, members, cost. The request is looked "
        "up in the request log ([request_log] in the configuration, else the default path)."
    )
    _common(command)
    command.add_argument("id", help="the id of the request or response, or the client's x-request-id")
    command.set_defaults(log_level="warning")


def _replay(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Send a request of the request log again, and show how the new response differs. Needs redact = false in "
        "[request_log]."
    )
    _common(command)
    command.add_argument("id", help="the id of the request or response, or the client's x-request-id")
    command.add_argument("--model", help="the model or route to use instead")
    command.set_defaults(log_level="warning")


def _check(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Read the configuration as serve does, then test what it names: providers, address, files, Redis, prices, "
        "routes, local model. No model is called. Exit code 0: nothing failed; 1: something failed; 2: the "
        "configuration is invalid."
    )
    _common(command)
    command.add_argument("--offline", action="store_true", help="check only the configuration; connect to nothing")
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")
    command.set_defaults(log_level="warning")


def _reload(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Make a running daemon reload its configuration, as SIGHUP does. If the configuration is invalid, the errors "
        "are shown and the daemon keeps the old one. If the daemon has keys, LLM_RUNTIME_KEY must contain one with "
        "admin = true."
    )
    _daemon(command, "address of the daemon (default: LLM_RUNTIME_URL, or http://127.0.0.1:8080)")
    command.add_argument("--json", action="store_true", help="write the result as one JSON object")


def _deploy(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Report on the five steps of a deployment (initialise, configure, monitor, scale, validate). The last step "
        "runs the checks of llm-runtime check. With --url, and if nothing failed, the daemon at that URL reloads its "
        "configuration; its file must have the same content as FILE. Exit code 0: nothing failed; 1: something failed; "
        "2: the configuration is invalid."
    )
    _common(command)
    _daemon(command, "address of a daemon that reads the same file; its key is taken from LLM_RUNTIME_KEY")
    command.add_argument("--offline", action="store_true", help="check only the configuration; connect to nothing")
    command.add_argument("--json", action="store_true", help="write the result as one JSON object")
    command.set_defaults(log_level="warning")


def _config(command: argparse.ArgumentParser) -> None:
    command.description = "Write a first configuration file, or the JSON Schema of configuration files."
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    what = "write a first file, with a provider for each key in the environment"
    init = actions.add_parser("init", help=what, allow_abbrev=False)
    init.description = "Write a first configuration file, with a provider for each key in the environment."
    init.add_argument("--output", metavar="FILE", help="the file to write; it must not exist yet (default: stdout)")
    schema = actions.add_parser("schema", help="write the JSON Schema of configuration files", allow_abbrev=False)
    schema.description = "Write the JSON Schema of configuration files to stdout. Editors use it to check a file."


def _fake_provider(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Imitate the APIs of OpenAI, Anthropic, Gemini, Cohere and Cerebras, with scripted responses and faults. Once "
        "it accepts requests it prints one line: ready http://HOST:PORT. GET /_fake/journal returns the requests that "
        "it has received."
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    command.add_argument("--port", type=_port, default=8090, help="port to listen on, 0: any free one (default 8090)")
    command.add_argument("--kind", help="imitate only this vendor; by default the path of a request selects one")
    command.add_argument("--script", metavar="FILE", help="rules (TOML): which requests get which responses and faults")
    command.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="add a model to the model list (repeatable)"
    )
    command.add_argument(
        "--key-env", metavar="NAME", help="refuse requests without the key in this environment variable"
    )
    command.add_argument("--tls-cert", metavar="FILE", help="certificate chain (PEM), to serve https")
    command.add_argument("--tls-key", metavar="FILE", help="the certificate's key (PEM), if it is in its own file")


def _model(command: argparse.ArgumentParser) -> None:
    command.description = "Install the local model, a small model that runs on this machine, or print where it is."
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("install", help="install the local model into this environment", allow_abbrev=False)
    actions.add_parser("path", help="print the path of the local model's file", allow_abbrev=False)


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", metavar="FILE", help="configuration (TOML); without it, the keys in the environment are used"
    )
    command.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        help="least severe level to log on stderr (default: info for serve, else warning)",
    )
    command.add_argument(
        "--log-format", choices=["text", "json"], default="text", help="format of the log lines (default text)"
    )


def _daemon(
    command: argparse.ArgumentParser, url: str = "address of a running daemon, such as http://127.0.0.1:8080"
) -> None:
    command.add_argument("--url", help=url)
    command.add_argument(
        "--ca-file", metavar="FILE", help="certificates (PEM) to trust for --url (default: LLM_RUNTIME_CA_FILE)"
    )


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.1 <= found <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (0.1 to 3600)")
    return found


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:3]) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers (1 to 64)")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 <= int(text[:6]) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)
