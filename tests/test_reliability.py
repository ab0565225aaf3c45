"""docs/reliability.md names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_promise_names_a_test():
    text = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    tables = [table.partition("\n\n")[0] for table in text.split("| promise | test |\n")[1:]]
    rows = [line for table in tables for line in table.splitlines()[1:]]
    assert len(rows) > 30
    for row in rows:
        names = re.findall(r"`([^`]*)`", row.rsplit(" | ", 1)[1])
        assert names, row
        path = TESTS
        for name in names:
            file, _, function = name.partition("::")
            path = TESTS / file if file else path
            assert path.is_file(), row
            assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), name
