"""``python -m selfreward``."""

import sys

from selfreward.core.cli import main

sys.exit(main())
