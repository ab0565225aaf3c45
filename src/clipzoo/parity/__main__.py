"""`python -m clipzoo.parity FILE...`; see the package's docstring."""

import sys

from clipzoo.runtime.ending import ending
from clipzoo.parity import check_file


def main(paths: list[str]) -> int:
    """Print one line for each case of each file; return 1 if any is not ok, 2 without a file."""
    if not paths:
        print("usage: python -m clipzoo.parity FILE...", file=sys.stderr)
        return 2
    status = 0
    for path in paths:
        try:
            for name, verdict in check_file(path):
                print(f"{name}: {verdict}", flush=True)
                status = status if verdict == "ok" else 1
        except (OSError, ValueError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    with ending():
        sys.exit(main(sys.argv[1:]))
