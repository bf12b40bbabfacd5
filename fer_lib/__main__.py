"""Run `python -m fer_lib`."""

import sys

from fer_lib.cli.main import main

sys.exit(main())
