"""``python -m rankexp``."""

import sys

from rankexp.cli import main

sys.exit(main())
