"""`python tests/parity FILE...`; see the package's docstring."""

import sys
from pathlib import Path

# Python puts this folder first when it runs it; the package `parity` is found in the one above.
sys.path[0] = str(Path(__file__).parents[1])

from clipzoo.runtime.ending import ending  # noqa: E402
from parity.command import main  # noqa: E402

if __name__ == "__main__":
    with ending():
        sys.exit(main(sys.argv[1:]))
