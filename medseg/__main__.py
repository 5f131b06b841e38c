"""``python -m medseg``."""

import sys

from medseg.cli.command_line import main

sys.exit(main())
