"""``python -m rankexp``, and what the command ``rankexp`` runs."""

import sys

from rankexp.safety.current_folder import forget_current_folder

forget_current_folder()

from rankexp.cli import main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
