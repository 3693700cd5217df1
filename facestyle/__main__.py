"""``python -m facestyle`` is the command ``facestyle``."""

import sys

from facestyle.cli import main

sys.exit(main())
