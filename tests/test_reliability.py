"""docs/reliability.md: every promise has a test, and the tests exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_promise_names_a_test():
    text = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = re.findall(r"^- \*\*(\w+)\*\* ", text, re.MULTILINE)
    assert len(promises) == len(set(promises)) > 60
    tables = [table.partition("\n\n")[0] for table in text.split("| promise | test |\n")[1:]]
    rows = [line.strip("| ").split(" | ") for table in tables for line in table.splitlines()[1:]]
    assert list(dict.fromkeys(promise for promise, _ in rows)) == promises
    for promise, test in rows:
        names = re.findall(r"`([^`]*)`", test)
        assert names, promise
        for name in names:
            file, _, function = name.partition("::")
            path = TESTS / file
            assert path.is_file(), name
            assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), name


def test_the_slowest_tests_exist():
    text = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.partition("| seconds | test |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([\d.]+) \| `([^`]*)::(test_\w+)` \|$", table, re.MULTILINE)
    assert len(rows) == 10
    assert [float(seconds) for seconds, *_ in rows] == sorted(
        (float(seconds) for seconds, *_ in rows), reverse=True
    )
    for _, file, function in rows:
        assert f"def {function}(" in (TESTS / file).read_text(encoding="utf-8"), function
