"""What becomes of a command: signals that end it, errors in one sentence, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

from rankexp.cli.output import BAD_INPUT, DAMAGED, DEFECT, INPUT_OUTPUT, INTERRUPTED, TERMINATED, complain
from rankexp.safety.printable import printable
from rankexp.safety.secrets import without_secrets

_OF_THE_SURROUNDINGS = {"StudyHeldError", "StorageError", "WorkersFailedError", "TrackingError"}
"""Errors by name, so that what raises them need not be loaded to say that something else went wrong."""
ENDING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""What schedulers send before they end a job, and what a terminal sends that is closed."""


class TerminatedError(BaseException):
    """The process was asked to end; not an Exception, so that nothing on the way takes it for a failure."""


def guarded(
    run: Callable[[], int],
    ending: Sequence[signal.Signals] = ENDING,
    received: Callable[[signal.Signals], None] = lambda _: None,
) -> int:
    """Run a command and return its exit code, whatever becomes of it.

    Args:
        run: The command.
        ending: Signals at which it saves what it trains and ends; those that come while it does change nothing.
        received: Is told of the first.
    """

    def terminate(number: int, _: FrameType | None) -> None:
        for other in ending:
            signal.signal(other, signal.SIG_IGN)
        received(signal.Signals(number))
        raise TerminatedError

    if threading.current_thread() is threading.main_thread():
        for number in ending:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, terminate)
    try:
        return run()
    except KeyboardInterrupt:
        complain("interrupted; finished trials are kept, and the same command goes on from there.")
        return INTERRUPTED
    except TerminatedError:
        complain("terminated; finished trials are kept, and the same command goes on from there.")
        return TERMINATED
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """Say in one sentence what went wrong; a traceback only for defects of ours."""
    from rankexp.assets import AssetError
    from rankexp.option_errors import ConfigError
    from rankexp.record.files import DamagedRecordError, RecordError, UnreadableRecordError

    name = type(error).__name__
    if isinstance(error, ConfigError):
        code = BAD_INPUT
    elif isinstance(error, DamagedRecordError):
        again = " `rankexp resume` with the name of the study trains it anew."
        complain(f"{error}{again if f'{os.sep}trials{os.sep}' in str(error) else ''}")
        return DAMAGED
    elif isinstance(error, RecordError):
        code = INPUT_OUTPUT if isinstance(error, UnreadableRecordError) else DAMAGED
    elif isinstance(error, AssetError) or name in _OF_THE_SURROUNDINGS:
        code = getattr(error, "code", None) or INPUT_OUTPUT
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}.")
        return INPUT_OUTPUT
    elif "SQLAlchemyError" in {kind.__name__ for kind in type(error).__mro__}:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        complain(f"the database of the workspace failed: {said.strip().rstrip('.')}.")
        return INPUT_OUTPUT
    else:
        sys.stderr.write(without_secrets(printable("".join(traceback.format_exception(error)))))
        complain("this is a defect of rankexp; please report it with the lines above.")
        return DEFECT
    complain(str(error))
    return code
