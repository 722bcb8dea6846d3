"""`python -m engine`: everything the lab does, without the page."""

import sys

from engine.cli import main

sys.exit(main())
