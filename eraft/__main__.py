"""`python -m eraft` is the console script `eraft`."""

import sys

from eraft.cli.main import main

sys.exit(main())
