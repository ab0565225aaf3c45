"""What the sections of benchmarks/gpu.py find, kept as JSON and shown as markdown.

A section writes its file after every finding: a run that is cut off loses only what was not
measured yet.
"""

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipzoo.files import replacing

Row = dict[str, Any]
"""Column -> value; units are in the columns' names."""


@dataclass(kw_only=True)
class Findings:
    """Of one section."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    """By title."""
    goals: dict[str, Row] = field(default_factory=dict)
    """By goal: `value`, `found` in words, and whether it is `met`."""
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """What was not measured, and why: no time was left, or a package is not installed."""
    faults: list[str] = field(default_factory=list)
    """Measurements that failed: what, and the last line of the traceback."""
    seconds: float = 0.0


class Section:
    """Collects the findings of one section and watches its time.

    Args:
        path: of the JSON file.
        seconds: that the section may take.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.findings = Findings()
        self._path, self._seconds, self._began = path, seconds, time.perf_counter()
        self._write()

    def left(self) -> float:
        """Seconds that are left."""
        return self._seconds - (time.perf_counter() - self._began)

    def row(self, table: str, **values: Any) -> None:
        """Add a row; `_` in the names of columns stands for a space."""
        row = {name.replace("_", " "): value for name, value in values.items()}
        self.findings.tables.setdefault(table, []).append(row)
        print("  " + ", ".join(f"{k}: {shown(v)}" for k, v in row.items()), flush=True)
        self._write()

    def note(self, text: str) -> None:
        """Add a sentence."""
        self.findings.notes.append(text)
        print(f"  {text}", flush=True)
        self._write()

    def goal(self, goal: str, value: float, found: str, *, met: bool) -> None:
        """Set the state of a goal; the last call counts."""
        self.findings.goals[goal] = {"value": value, "found": found, "met": met}
        self._write()

    def enough_time(self, seconds: float, name: str) -> bool:
        """Whether `seconds` are left; otherwise `name` is listed as skipped."""
        if self.left() >= seconds:
            return True
        self._skip(f"{name} (no time left)")
        return False

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """A measurement whose failure is reported and loses no other.

        One that needs a package which is not installed is skipped.
        """
        try:
            yield
        except ModuleNotFoundError as error:
            self._skip(f"{name} (needs the package {error.name}, which is not installed)")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
            self.findings.faults.append(f"{name}: {last}")
            print(f"  FAILED {name}: {last}", flush=True)
        self._write()

    def _skip(self, text: str) -> None:
        self.findings.skipped.append(text)
        print(f"  skipped: {text}", flush=True)
        self._write()

    def _write(self) -> None:
        self.findings.seconds = round(time.perf_counter() - self._began, 1)
        _write_whole(self._path, json.dumps(asdict(self.findings), indent=1))


def read_findings(path: Path) -> Findings:
    """Of a section that has ended, or was cut off; empty if it never began."""
    return Findings(**json.loads(path.read_text())) if path.is_file() else Findings()


def write_report(
    folder: Path, name: str, header: Row, sections: dict[str, Findings]
) -> tuple[Path, Path]:
    """Write <name>.md and <name>.json; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / f"{name}.md", folder / f"{name}.json"
    content = {**header, "sections": {title: asdict(f) for title, f in sections.items()}}
    _write_whole(data, json.dumps(content, indent=1) + "\n")
    _write_whole(text, "\n".join(_markdown(header, sections)) + "\n")
    return text, data


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it is always either the old one or the complete new one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def shown(value: Any) -> str:
    """A value in a table: floats with three or more digits, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _markdown(header: Row, sections: dict[str, Findings]) -> Iterator[str]:
    yield f"# {header['title']}"
    yield ""
    yield from (f"- {key}: {shown(value)}" for key, value in header.items() if key != "title")
    goals = {goal: row for f in sections.values() for goal, row in f.goals.items()}
    if goals:
        yield from ("", "| goal | found | met |", "|---|---|---|")
        for goal, row in goals.items():
            yield f"| {goal} | {row['found']} | {'met' if row['met'] else 'NOT MET'} |"
    for title, findings in sections.items():
        yield from ("", f"## {title} ({findings.seconds:.0f} s)")
        for table, rows in findings.tables.items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            yield from ("", f"**{table}**", "", f"| {' | '.join(columns)} |")
            yield "|" + "---|" * len(columns)
            for row in rows:
                cells = [shown(row.get(column)).replace("|", "\\|") for column in columns]
                yield f"| {' | '.join(cells)} |"
        lines = [
            *findings.notes,
            *(f"skipped: {text}" for text in findings.skipped),
            *(f"FAILED: {fault}" for fault in findings.faults),
        ]
        if lines:
            yield ""
            yield from (f"- {line}" for line in lines)
