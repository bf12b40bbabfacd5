"""`python -m fer_lib`."""

import sys

from fer_lib.cli import main

sys.exit(main())
