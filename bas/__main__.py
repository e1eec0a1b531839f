"""`python -m bas`: the console command."""

import sys

from bas.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
