"""The ledger of a copy, data/annotations/<dataset>/missing.csv: videos that this copy lacks.

Copies of a dataset differ: clips vanish from YouTube, and downloads break. What a copy lacks is a
property of the copy, not of a run, so it is beside the annotation files and not in params.yaml. A
person accepts it with `clipzoo missing DATASET --accept`; a video that is missing and not in the
ledger is an error.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipzoo.data.records import check_video_id
from clipzoo.data.spec import ANNOTATION_DIR
from clipzoo.files import raise_all, read_rows, write_csv

LEDGER_NAME = "missing.csv"
LEDGER_COLUMNS = ("video_id", "reason")
SHORT = "short"
KINDS = ("absent", "broken", "cut", "differs", SHORT)
"""The first words of reasons: there is no such file; it cannot be decoded; it ends clearly earlier
than its header says; its size is not that in the manifest; it does not show some of its annotated
segments."""
ABSENT = "absent: not among the raw videos"


def ledger_path(dataset: str) -> Path:
    return ANNOTATION_DIR / dataset / LEDGER_NAME


def read_ledger(dataset: str) -> dict[str, str]:
    """The videos that this copy lacks: {id: reason}; empty if there is no ledger.

    Ids are those of the manifest where the file exists, else as in the annotations.

    Raises:
        ListError: the file cannot be read, or has bad lines; lists them all.
    """
    path = ledger_path(dataset)
    if not path.exists():
        return {}
    ledger: dict[str, str] = {}
    faults = []
    for line, video_id, reason in read_rows(path, LEDGER_COLUMNS):
        if fault := check_video_id(video_id):
            faults.append(f"{path}:{line}: {fault}")
        elif not reason_kind(reason):
            allowed = f"{', '.join(KINDS)}, and details after a colon"
            faults.append(f"{path}:{line}: reason: found {reason[:100]!r}; allowed: {allowed}")
        elif video_id in ledger:
            faults.append(f"{path}:{line}: video {video_id!r} is listed twice")
        ledger[video_id] = reason
    raise_all(
        f"{path}: {len(faults)} bad lines; correct them, or remove the file and write it again "
        f"with {accept_command(dataset)}",
        faults,
    )
    return ledger


def write_ledger(dataset: str, rows: Mapping[str, str] | Iterable[tuple[str, str]]) -> Path:
    """Write a ledger, sorted by id, and return its path; `describe` makes the reasons."""
    path = ledger_path(dataset)
    write_csv(LEDGER_COLUMNS, sorted(dict(rows).items()), path)
    return path


def reason_kind(reason: str) -> str:
    """The first word of a reason, one of KINDS; '' if it is none of them."""
    word = reason.partition(":")[0]
    return word if word in KINDS else ""


def describe(reason: str) -> str:
    """A failure of the extraction as a reason: one line, after `broken: ` unless it has a kind."""
    text = re.sub(r"\s+", " ", reason).strip()
    return text if reason_kind(text) else f"broken: {text}"


def ways_out(dataset: str) -> str:
    """The end of messages on videos that are missing and not in the ledger: what to do."""
    command = accept_command(dataset)
    return f"get them and scan again, or accept that this copy lacks them with {command}"


def accept_command(dataset: str) -> str:
    """The command that writes what a copy lacks; for messages."""
    return f"`clipzoo missing {dataset} --accept`"
