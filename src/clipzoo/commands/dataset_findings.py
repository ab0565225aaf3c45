"""What `check`, `scan` and `recipes` find out about a dataset before a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipzoo.commands.missing import Survey, survey
from clipzoo.config import ConfigError, Params
from clipzoo.data.index import StoreError
from clipzoo.data.ledger import LEDGER_NAME, accept_command, ledger_path, ways_out
from clipzoo.data.spec import ANNOTATION_DIR, DatasetSpec, load_spec, raw_root
from clipzoo.files import ListError, csv_lines, few
from clipzoo.frames.manifest import manifest_path


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the dry run."""

    topic: str
    text: str
    ok: bool | None
    """Whether the run can start in this respect; None = the line is for information only."""


def try_survey(params: Params, dataset: str) -> Survey | str:
    """A dataset's annotations joined with its files, else why that fails; '' = one is absent."""
    folder = ANNOTATION_DIR / dataset
    has_both = manifest_path(dataset).is_file() and _has_annotations(folder)
    if dataset in params.data.demo or not has_both:
        return ""
    try:
        return survey(params, dataset)
    except (ConfigError, ListError, StoreError) as error:
        return str(error)


def _has_annotations(folder: Path) -> bool:
    """Whether a folder has files other than the ledger."""
    return folder.is_dir() and any(path.name != LEDGER_NAME for path in folder.iterdir())


def dataset_findings(params: Params, dataset: str, found: Survey | str) -> Iterator[Finding]:
    """Paths and counts of one dataset; `found` is what `try_survey` gave."""
    try:
        spec = load_spec(dataset)
    except ConfigError as error:
        yield Finding(topic=f"dataset file of {dataset}", text=str(error), ok=False)
        return
    if dataset in params.data.demo:
        yield Finding(topic=f"videos of {dataset}", text="rendered by make_demo", ok=True)
        return
    yield from _video_findings(params, dataset, spec, found)
    folder = ANNOTATION_DIR / dataset
    topic, text = f"annotations of {dataset}", f"annotation files in {folder}/"
    if not _has_annotations(folder):
        text += f": none; datasets/{dataset}.yaml says which are needed"
        yield Finding(topic=topic, text=text, ok=False)
    elif isinstance(found, str) and found:
        yield Finding(topic=topic, text=found, ok=False)
    else:
        yield Finding(topic=topic, text=text, ok=True)
    if isinstance(found, Survey):
        notes = [*found.notes]
        if found.removed:
            notes.append(
                f"{len(found.removed):,} videos in {ledger_path(dataset)} are there, or not "
                f"annotated ({few(found.removed)}); {accept_command(dataset)} takes them out"
            )
        for note in notes:
            yield Finding(topic=f"files of {dataset}", text=note, ok=None)


def _video_findings(
    params: Params, dataset: str, spec: DatasetSpec, found: Survey | str
) -> Iterator[Finding]:
    """The manifest, what it lacks, and the folder of the videos."""
    topic = f"videos of {dataset}"
    manifest, root = manifest_path(dataset), raw_root(params, dataset)
    num_files = num_lines(manifest)
    if num_files is None:
        text = f"no {manifest}; get the videos and run `clipzoo scan {dataset} FOLDER` "
        text += f"({spec.about.strip()})"
        yield Finding(topic=topic, text=text, ok=False)
        return
    if isinstance(found, Survey):
        yield _coverage(dataset, found)
    else:
        yield Finding(topic=topic, text=f"{num_files:,} videos in {manifest}", ok=None)
    text = f"videos at {root}"
    if not root.exists():
        text += ": no such folder; set CLIPZOO_DATA to the folder that holds it"
    yield Finding(topic=topic, text=text, ok=root.exists())


def _coverage(dataset: str, found: Survey) -> Finding:
    """Whether every annotated video has a file or is in the ledger."""
    topic, total = f"videos of {dataset}", len(found.joined.videos)
    if found.shortage:
        text = f"{found.shortage} ({few(found.added)}); {ways_out(dataset)}"
        return Finding(topic=topic, text=text, ok=False)
    text = f"{found.num_files:,} videos in {manifest_path(dataset)}, {total:,} annotated"
    if found.lost:
        text += f", {len(found.lost):,} missing, all in {ledger_path(dataset)}"
    return Finding(topic=topic, text=text, ok=True)


def num_lines(path: Path) -> int | None:
    """Number of rows of a csv file without its header; None = no such file."""
    if not path.is_file():
        return None
    return max(sum(1 for _ in csv_lines(path)) - 1, 0)


def spec_or_none(dataset: str) -> DatasetSpec | None:
    try:
        return load_spec(dataset)
    except ConfigError:
        return None
