"""``python -m carousel`` is the command ``carousel``."""

import sys

from carousel.cli.main import main

sys.exit(main())
