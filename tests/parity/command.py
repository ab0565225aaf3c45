"""What `python tests/parity FILE...` prints."""

import sys

from parity.check import check_file


def main(paths: list[str]) -> int:
    """Print one line for each case of each file; return 1 if any is not ok, 2 without a file."""
    if not paths:
        print("usage: python tests/parity FILE...", file=sys.stderr)
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
