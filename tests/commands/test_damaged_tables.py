"""Damaged, older and swapped files of fuse, compare, report and predictions: each is named.

Every case changes one file of finished runs. The command then works, as the change may not matter
to it, or ends with one expected error that names a file of the run.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from clipzoo.__main__ import make_parser
from clipzoo.clips.selection import MeasuredSet
from clipzoo.comparison.page import BENCHMARK
from clipzoo.data.records import Record
from clipzoo.evaluate import fusion, predictions
from clipzoo.files import json_sha256, write_json
from clipzoo.report.recipes import recipe_settings
from clipzoo.report.tables import write_report
from clipzoo.tensors import write_safetensors

ROOT = Path(__file__).parents[2]
RUNS = ("demo", "demo/bike-vcs")
RECORDS = [Record(f"x/v{i}", 9, i % 3) for i in range(8)]
LABELS = torch.tensor([record.label for record in RECORDS])
SEED = 20
VALUES = [None, True, -1, 10**400, 1e308, "x", "", "\ud800", "\x1b[2J", [], {}, [1], {"a": [2]}, 0]
"""In place of any value."""


def run_command(*words: str) -> Callable[[], None]:
    def run() -> None:
        arguments = make_parser().parse_args(words)
        arguments.run(arguments)

    return run


PREDICTIONS = "predictions/test.safetensors"
KEPT = "predictions/zoo/demo/bike-vcs/test.safetensors"
COMMANDS: dict[str, Callable[[], object]] = {
    "fuse": run_command("fuse", KEPT, PREDICTIONS),
    "fuse stage": lambda: fusion.check_same_videos(
        fusion.read_kept("demo/bike-vcs")[0], fusion.read_scores(PREDICTIONS, "demo")
    ),
    "compare": run_command("compare", *RUNS),
    "report": write_report,
    "predictions": run_command("predictions"),
}


def write_set(run: str, stem: str, key: str, settings: dict[str, Any]) -> None:
    """What `test` and `zero_shot` leave of a set of videos."""
    probabilities = torch.eye(3)[(LABELS + torch.tensor([1] + [0] * 7)) % 3]
    about = predictions.describe_set(
        MeasuredSet(dataset="demo_shapes", records=RECORDS, lists=["val"], num_listed=len(RECORDS)),
        "p",
    )
    interval = {"ci95_low": 50.0, "ci95_high": 99.0}
    ends = {f"{key}_{k}": v for k, v in interval.items()}
    results = {key: 87.5, **ends, key.replace("top1", "top5"): 100.0}
    if stem != "test":
        gain = {f"gain_{k}": v for k, v in interval.items()}
        results |= {"half_top1_mean": 90.0, "half_top1_std": 1.5, "gain": 5.0} | gain
    text = {"settings_sha256": json_sha256(settings), "environment": "torch 2"}
    write_json({**about, **text, **results}, f"metrics/{run}/{stem}.json")
    write_json(settings, f"plots/{run}/{stem}/settings.json")
    tensors = {"labels": LABELS, "probabilities": probabilities}
    predictions.write_videos(f"plots/{run}/{stem}", RECORDS, tensors)
    if stem == "test":
        tensors |= {"features": torch.zeros(8, 1, 2), "train_probabilities": probabilities.clone()}
        tensors["train_labels"] = LABELS.clone()
        about |= {"model_sha256": "m", "recipe": run}
        about["train_video_ids"] = json.dumps([record.video_id for record in RECORDS])
        predictions.save("test", tensors, RECORDS, ["clip0-center"], ["x", "y", "z"], about)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, the first with the predictions of the second kept, and a benchmark."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(ROOT / "recipes/demo", "recipes/demo")
        shutil.copy(ROOT / "recipes/demo.yaml", "recipes")
        shutil.copy(ROOT / "params.yaml", ".")
        BENCHMARK.parent.mkdir(parents=True)
        shutil.copy(ROOT / BENCHMARK, BENCHMARK)
        write_json({"input_px": 64, "environment": ""}, "metrics/clip.json")
        for run in reversed(RUNS):
            settings = recipe_settings(run)
            write_set(run, "test", "top1", settings)
            write_set(run, "zero_shot_demo_unseen", "full_top1", settings)
            training = {"num_videos": 9, "videos_sha256": "s", "steps": 3, "environment": "torch 2"}
            write_json(training, f"metrics/{run}/train.json")
            if run != "demo":
                folder = Path(KEPT).parent
                folder.parent.mkdir(parents=True)
                shutil.copytree("predictions", folder, ignore=lambda *_: ["zoo"])
                shutil.copy(f"metrics/{run}/test.json", folder)
        for command in COMMANDS.values():
            command()
        shutil.rmtree("report")
    return root


def damage_bytes(path: Path, files: list[Path], rng: random.Random) -> str:
    """Truncate, flip, repeat, empty or replace a file of any kind."""
    content, way = path.read_bytes(), rng.choice(["cut", "flip", "flips", "twice", "swap", "other"])
    places = [rng.randrange(len(content)) for _ in range(1 if way == "flip" else 20)]
    changed = bytearray(content)
    if way == "cut":
        changed = changed[: rng.choice([0, places[0]])]
    elif way in ("flip", "flips"):
        for place in places:
            changed[place] ^= 1 << rng.randrange(8)
    elif way == "twice":
        changed = changed * 2
    elif way == "swap":
        changed = bytearray(rng.choice(files).read_bytes())
    else:
        changed = bytearray(
            rng.choice([b"", b"null", b"[]", b"\0" * 64, b"\xff\xfe{", b"[" * 9999])
        )
    path.write_bytes(changed)
    return way


def damage_json(values: Any, rng: random.Random) -> str:
    """Remove or replace one value at any depth."""
    while True:
        key = rng.choice(list(values) if isinstance(values, dict) else range(len(values)))
        inner = values[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.3:
            break
        values = inner
    if rng.random() < 0.3:
        del values[key]
        return f"{key} removed"
    values[key] = rng.choice([*VALUES, float("nan"), float("-inf")])
    return f"{key} = {values[key]!r:.40}"


def damage_tensors(path: Path, rng: random.Random) -> str:
    """Change the metadata or a tensor of a safetensors file, with a valid checksum."""
    from clipzoo.tensors import read_safetensors

    tensors, metadata = read_safetensors(path)
    if rng.random() < 0.6:
        key = rng.choice(list(metadata))
        if rng.random() < 0.3:
            del metadata[key]
            what = f"{key} removed"
        else:
            metadata[key] = rng.choice(["", "x", "-1", "9" * 400, "null", "[1]", "\x1b[2J", "1e3"])
            what = f"{key} = {metadata[key]:.20}"
    else:
        key = rng.choice(list(tensors))
        ways = [
            lambda t: t[:-1],
            lambda t: t.half(),
            lambda t: t.to(torch.int8),
            lambda t: t.bool(),
            lambda t: t * float("nan"),
            lambda t: t - 100,
            lambda t: t.unsqueeze(0),
            lambda t: t.flatten()[0],
            lambda t: t[:0],
        ]
        number = rng.randrange(len(ways) + 1)
        what = f"{key} way {number}"
        if number == len(ways):
            del tensors[key]
        else:
            tensors[key] = ways[number](tensors[key]).contiguous().clone()
    write_safetensors(tensors, path, metadata)
    return what


def damage_table(path: Path, rng: random.Random) -> str:
    """Change a column of a parquet file."""
    table = parquet.read_table(path)
    place = rng.randrange(table.num_columns)
    name, rows = table.column_names[place], table.num_rows
    columns = [
        None,
        pa.nulls(rows),
        pa.array(["\x1b[2J"] * rows),
        pa.array([b"\xff"] * rows),
        pa.array([float("nan")] * rows),
        pa.array([-1] * rows),
        pa.array([2**62] * rows),
        pa.array([[1]] * rows),
        pa.array([{"a": 1}] * rows),
        pa.array([2**62] * rows, pa.timestamp("us")),
        pa.array([True] * rows),
    ]
    number = rng.randrange(len(columns) + 2)
    if number == len(columns):
        table = table.slice(1)
    elif number > len(columns):
        table = table.append_column(name, table.column(place))
    else:
        table = table.remove_column(place)
        if columns[number] is not None:
            table = table.add_column(place, name, columns[number])
    parquet.write_table(table, path)
    return f"{name} way {number}"


def damage(path: Path, files: list[Path], rng: random.Random) -> str:
    """Change a file; returns how."""
    if rng.random() < 0.4 or path.suffix in (".csv", ".png"):
        return damage_bytes(path, files, rng)
    if path.suffix == ".safetensors":
        return damage_tensors(path, rng)
    if path.suffix == ".parquet":
        return damage_table(path, rng)
    values = json.loads(path.read_text(encoding="utf-8"))
    text = damage_json(values, rng)
    settings = path.with_name("settings.json")
    path.write_text(json.dumps(values), encoding="utf-8")
    if path == settings and rng.random() < 0.7:  # an older version wrote it, with its digest
        metrics = Path("metrics", *path.parts[1:-1]).with_suffix(".json")
        measured = json.loads(metrics.read_text())
        metrics.write_text(json.dumps({**measured, "settings_sha256": json_sha256(values)}))
        return f"{text}, and its digest"
    return text


def fault_of(name: str, path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how a command takes a damaged file; '' = nothing is."""
    case = f"{name}: {path}: {how}"
    try:
        COMMANDS[name]()
    except (ValueError, OSError) as error:
        text = str(error)
        if type(error) in (ValueError, UnicodeDecodeError, UnicodeEncodeError, OSError):
            return f"{case}: {type(error).__name__}: {text[:300]}"
        named = [str(path), str(path.with_suffix("")), str(path.parent)]
        if path.parts[0] == "plots":  # its run is named by its metrics
            named.append(str(Path("metrics", *path.parts[1:-2])) + "/")
        return "" if any(one in text for one in named) else f"{case}: nameless: {text[:300]}"
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error!s:.300}"
    if not capsys.readouterr().out.replace("\n", "").isprintable():
        return f"{case}: prints what a terminal obeys"
    return ""


READS = {
    "fuse": ("predictions/",),
    "fuse stage": ("predictions/",),
    "compare": ("metrics/", "plots/", "benchmarks/"),
    "report": ("metrics/", "plots/"),
    "predictions": ("predictions/test",),
}


def try_cases(finished: Path, numbers: range, monkeypatch, capsys) -> list[str]:
    """Faults of seeded cases, each one file for one command."""
    monkeypatch.chdir(finished)
    everything = [p for p in sorted(finished.rglob("*")) if p.suffix in (".json", ".csv")]
    everything += sorted(finished.glob("predictions/**/test.*[!n]"))
    files = [path.relative_to(finished) for path in dict.fromkeys(everything)]
    faults = []
    for number in numbers:
        rng = random.Random(SEED * 10**6 + number)
        name = list(COMMANDS)[number % len(COMMANDS)]
        path = rng.choice([p for p in files if str(p).startswith(READS[name])])
        before = {p: p.read_bytes() for p in files}
        how = damage(path, files, rng)
        faults.append(fault_of(name, path, how, capsys))
        for file, content in before.items():
            if file.read_bytes() != content:
                file.write_bytes(content)
    return [fault for fault in faults if fault]


def test_damaged_files_are_named(finished, monkeypatch, capsys):
    faults = try_cases(finished, range(50), monkeypatch, capsys)
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_many_damaged_files_are_named(finished, monkeypatch, capsys):
    faults = try_cases(finished, range(50, 600), monkeypatch, capsys)
    assert not faults, "\n".join(faults)
