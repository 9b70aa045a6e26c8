"""Run the command line and write down whatever touches what is none of its business.

Usage: ``python watched.py LOG CANARY ALLOWED_PORTS -- ARGUMENTS``. An audit hook sees what Python itself opens, lists,
deletes, connects to and starts; what libraries in other languages do is left to strace.
"""

import os
import sys

LOG, CANARY, PORTS = -1, "", [""]
"""Set by the program below; nothing is opened by whoever only looks at this file."""
HARMLESS = {
    "os.putenv",
    "os.unsetenv",
    "object.__getattr__",
    "sys._getframe",
    "compile",
    "marshal.loads",
    "code.__new__",
}


def canary_in(value: object) -> bool:
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return isinstance(value, str) and len(value) < 4096 and "\0" not in value and _leads_there(value)


def _leads_there(text: str) -> bool:
    path = text.removeprefix("file:").partition("?")[0]
    return os.path.realpath(path).startswith(CANARY)


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in HARMLESS:
        return
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and str(address[1]) not in PORTS:
            note(event, address)
    elif event.startswith(("open", "os.", "shutil.", "sqlite3.connect", "glob.", "pathlib.")) and any(
        map(canary_in, arguments)
    ):
        note(event, arguments)


def note(event: str, what: object) -> None:
    os.write(LOG, f"{event} {what!r}\n".encode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    LOG, CANARY, PORTS = (
        os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        sys.argv[2],
        sys.argv[3].split(","),
    )
    sys.addaudithook(watch)
    from rankexp.cli import main

    code = main(sys.argv[5:])
    here = os.getcwd()
    for name, module in list(sys.modules.items()):
        if os.path.exists(file := getattr(module, "__file__", None) or "") and os.path.realpath(file).startswith(
            here + os.sep
        ):
            note("imported", name)
    sys.exit(code)
