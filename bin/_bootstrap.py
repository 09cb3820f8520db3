"""Creates the environment of the checkout, once, with only Python's standard library.

The installation has stages (the project itself, what the tests need, …). Each has a stamp file, which is written when
the stage is complete and has a fingerprint of what was installed. If all stamps match, the program is started at once.
During an installation there is a `busy` file beside the stamps. A run that finds it while the lock is free knows that
an installation was interrupted, and starts over. A `.venv` that was created in another way is used, but never removed.

The syntax is that of Python 3.7, so that an old Python can print that it is too old.
"""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST = (3, 11)
PIP_SECONDS = 1800
"""The most seconds that one run of pip may take."""


def start(program, stages, argv, environ=None):
    """Replace this process by ``.venv/bin/python -P argv``, with ``stages`` installed. Does not return."""
    python = prepare(program, stages)
    os.execve(python, [python, "-P", *argv], {**os.environ, **(environ or {})})  # noqa: S606 - no shell is wanted


def prepare(program, stages):
    """Return the Python of the environment, with ``stages`` installed. If that fails, print one line and exit."""
    _require_python(program)
    folder = _folder()
    try:
        if not all(_is_done(folder, stage) for stage in stages):
            _install(program, folder, stages)
    except KeyboardInterrupt:
        _fail(program, "interrupted; the next run starts the installation over", 130)
    except OSError as exc:
        _fail(program, f"cannot create {folder}: {exc.strerror or exc}")
    return _python(folder)


def _require_python(program):
    if sys.version_info >= OLDEST:
        return
    import shutil

    wanted = ".".join(map(str, OLDEST))
    for minor in range(OLDEST[1], OLDEST[1] + 10):
        newer = shutil.which(f"python3.{minor}")
        if newer and not os.environ.get("LLM_RUNTIME_RETRIED"):
            os.environ["LLM_RUNTIME_RETRIED"] = "1"
            os.execv(newer, [newer, *sys.argv])  # noqa: S606 - no shell is wanted
    _fail(program, f"needs Python {wanted} or newer; {sys.executable} is {sys.version.split()[0]}")


def _folder():
    """Return ``.venv`` in the checkout or, if the checkout is read-only, a folder in the user's cache."""
    folder = os.path.join(ROOT, ".venv")
    if os.path.exists(folder) or os.access(ROOT, os.W_OK):
        return folder
    import zlib

    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "llm-runtime", f"venv-{zlib.crc32(os.fsencode(ROOT)):08x}")


def _python(folder):
    return os.path.join(folder, "bin", "python")


def _stamps(folder):
    return os.path.join(folder, ".llm-runtime")


def _is_done(folder, stage):
    try:
        with open(os.path.join(_stamps(folder), stage)) as file:
            return file.read() == _fingerprint(folder, stage) and not os.path.exists(_busy(folder))
    except OSError:
        return False


def _busy(folder):
    return os.path.join(_stamps(folder), "busy")


def _fingerprint(folder, stage):
    """Return a fingerprint of the interpreter, the path of the checkout and, except for the environment,
    pyproject.toml.
    """
    import hashlib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        content = file.read() if stage != "environment" else b""
    interpreter = os.path.realpath(_python(folder))
    parts = (stage, ROOT, interpreter if os.path.exists(interpreter) else "gone")
    return hashlib.sha256(b"\0".join([content, *map(os.fsencode, parts)])).hexdigest()


def _install(program, folder, stages):
    import fcntl
    import time

    os.makedirs(os.path.dirname(folder), exist_ok=True)
    begun = time.monotonic()
    # The lock is on the parent folder, which already exists. pip inherits it, so that the next run waits for a pip
    # that outlives this process.
    lock = os.open(os.path.dirname(folder), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(program, "another installation is running; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    missing = [stage for stage in stages if not _is_done(folder, stage)]
    if missing:
        _make_environment(program, folder, lock)
        for stage in missing:
            _run_pip(program, folder, stage, lock)
        if _is_ours(folder):
            os.unlink(_busy(folder))
        _say(program, f"installed in {time.monotonic() - begun:.0f} s")
    os.close(lock)


def _make_environment(program, folder, lock):
    import shutil

    if os.path.exists(_busy(folder)) or (_is_ours(folder) and not _is_done(folder, "environment")):
        _say(program, "starting over: an earlier installation did not finish, or Python or the checkout has moved")
        shutil.rmtree(folder)
    if not os.path.exists(_python(folder)):
        _say(program, f"first run: creating {folder} with Python {sys.version.split()[0]}")
        # Create the busy file first: an incomplete environment looks like a complete one.
        os.makedirs(_stamps(folder), exist_ok=True)
        _write(_busy(folder), "")
        _run(program, [sys.executable, "-m", "venv", folder], folder, lock, "creating the environment")
        _stamp(folder, "environment")
    os.makedirs(_stamps(folder), exist_ok=True)
    if _is_ours(folder):
        _write(_busy(folder), "")


def _is_ours(folder):
    return os.path.exists(os.path.join(_stamps(folder), "environment"))


def _stamp(folder, stage):
    _write(os.path.join(_stamps(folder), stage), _fingerprint(folder, stage))


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def _run_pip(program, folder, stage, lock):
    wanted = ["--editable", ROOT] if stage == "project" else _requirements(stage)
    _say(program, "installing llm-runtime" if stage == "project" else f"installing {', '.join(map(_name, wanted))}")
    pip = [_python(folder), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    _run(program, [*pip, *wanted], folder, lock, f"installing {stage}")
    _stamp(folder, stage)


def _requirements(stage):
    """Return the requirements of a dependency group in pyproject.toml. Older versions of pip cannot read groups."""
    import tomllib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        groups = tomllib.load(file)["dependency-groups"]
    return [entry for entry in groups[stage] if isinstance(entry, str)]


def _name(requirement):
    import re

    return re.split(r"[<>=!~;\[ ]", requirement)[0]


def _run(program, command, folder, lock, what):
    """Run ``command`` with its output in a log file. On a terminal, show the seconds."""
    import subprocess
    import time

    log = os.path.join(_stamps(folder), "log")
    begun = time.monotonic()
    with open(log, "w") as output:
        child = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(lock,)
        )
        try:
            while child.poll() is None and time.monotonic() - begun < PIP_SECONDS:
                _tick(f"{program}: {what} … {time.monotonic() - begun:.0f} s")
                try:
                    child.wait(1 if _on_terminal() else 60)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            _tick("")
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode:
        _fail(program, f"{what} failed: {_reason(log)} (full log: {log})")


def _reason(log):
    """Return the most informative line of a log."""
    with open(log, errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    if any("ensurepip is not" in line for line in lines):
        return "this Python has no ensurepip; install its venv package (Debian: apt-get install python3-venv)"
    unreached = [line.partition(" broken by ")[2] for line in lines if "after connection broken by" in line]
    if unreached and any("from versions: none" in line for line in lines):
        return f"the package index cannot be reached: {unreached[-1]}"
    for telling in ("ERROR: ", "Error: ", ""):
        if found := [line for line in lines if telling in line]:
            return found[-1].removeprefix(telling)
    return "there was no output"


def _tick(text):
    if _on_terminal():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _on_terminal():
    return sys.stderr is not None and sys.stderr.isatty()


def _say(program, text):
    if sys.stderr is None:  # closed, as some services do
        return
    sys.stderr.write(f"{program}: {text}\n")
    sys.stderr.flush()


def _fail(program, text, code=1):
    _say(program, text)
    sys.exit(code)
