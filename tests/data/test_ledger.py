"""The ledger of a copy."""

import pytest

from clipzoo.data.ledger import describe, ledger_path, read_ledger, write_ledger
from clipzoo.files import ListError


def test_a_ledger_is_sorted_and_read_again(project):
    assert read_ledger("mine") == {}
    rows = [("b/é, x", "broken: moov atom not found"), ("a", "absent")]
    write_ledger("mine", rows)
    assert ledger_path("mine").read_text(encoding="utf-8") == (
        'video_id,reason\na,absent\n"b/é, x",broken: moov atom not found\n'
    )
    assert read_ledger("mine") == dict(rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,gone", r"missing.csv:3: reason: found 'gone'; allowed: absent, broken, cut"),
        ("x,", r"missing.csv:3: reason: found ''"),
        ("a,broken", r"missing.csv:3: video 'a' is listed twice"),
        ("../x,absent", r"missing.csv:3: path '../x' leaves"),
        ("x", r"missing.csv:3: found 1 fields; allowed: 2"),
    ],
)
def test_bad_lines_are_named(project, line, message):
    path = write_ledger("mine", {"a": "absent"})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ListError, match=message):
        read_ledger("mine")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("moov atom\n not found", "broken: moov atom not found"),
        ("cut: 3.0 of 10.0 s", "cut: 3.0 of 10.0 s"),
        ("differs: 5 bytes", "differs: 5 bytes"),
        ("cutting edge", "broken: cutting edge"),
    ],
)
def test_failures_become_reasons(failure, reason):
    assert describe(failure) == reason
