"""`python -m engine`: everything the lab does, without the page."""

import sys

from engine.commands.main import main

sys.exit(main())
