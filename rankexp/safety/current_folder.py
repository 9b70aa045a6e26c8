"""Keeping Python from looking for modules where a command happens to run, beside other people's data.

It imports nothing that is not loaded anyway, since that might already come from there.
"""

import os
import sys


def forget_current_folder() -> None:
    """Undo what ``python -m`` and empty entries of ``PYTHONPATH`` do: no further module comes from the current folder.

    What the user names on ``PYTHONPATH`` stays, also if it is the current folder.
    """
    here, entries = os.getcwd(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if not sys.flags.safe_path and sys.path[:1] in ([""], [here]):
        del sys.path[0]
    if here not in [os.path.abspath(entry) for entry in entries if entry]:
        sys.path[: len(entries)] = [entry for entry in sys.path[: len(entries)] if entry not in ("", here)]
