"""`clipzoo predictions`."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from clipzoo.__main__ import main
from clipzoo.clips.selection import MeasuredSet
from clipzoo.commands.predictions import prediction_files
from clipzoo.data.records import Record
from clipzoo.evaluate import predictions
from clipzoo.files import ListError

ROOT = Path(__file__).parents[2]
NAMES = ["run", "sit down", "jump"]
# right, wrong (0.9), wrong (0.6), right
PROBABILITIES = [[0.8, 0.1, 0.1], [0.02, 0.08, 0.9], [0.3, 0.6, 0.1], [0.2, 0.3, 0.5]]
LABELS = [0, 0, 2, 2]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)


def save(stem: str) -> None:
    records = [Record(f"{stem}/v{i}", 9, label) for i, label in enumerate(LABELS)]
    tensors = {
        "features": torch.zeros(4, 1, 2),
        "probabilities": torch.tensor(PROBABILITIES),
        "labels": torch.tensor(LABELS),
    }
    about = predictions.describe_set(
        MeasuredSet(dataset="d", records=records, lists=["val"], num_listed=len(records)), "p"
    )
    predictions.save(
        stem, tensors, records, ["clip0-center"], NAMES, {**about, "model_sha256": "m"}
    )


def table(monkeypatch, capsys, *arguments: str) -> list[list[str]]:
    """The cells of the printed lines, which are divided by two blanks or more."""
    monkeypatch.setattr("sys.argv", ["clipzoo", "predictions", *arguments])
    main()
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell] for line in lines]


def test_all_videos_of_the_run_are_shown(monkeypatch, capsys):
    save("test")
    save("zero_shot_demo_unseen")
    lines = table(monkeypatch, capsys)
    assert lines[0] == ["predictions/test.parquet: 4 videos, 2 wrong"]
    assert lines[1] == ["Video", "Class", "Predicted", "Probability", "Rank"]
    assert lines[2] == ["test/v0", "run", "run", "0.800", "1"]
    assert lines[4] == ["test/v2", "jump", "sit down", "0.600", "3"]
    assert lines[7] == ["predictions/zero_shot_demo_unseen.parquet: 4 videos, 2 wrong"]


def test_wrong_ones_come_with_the_most_confident_first(monkeypatch, capsys):
    save("test")
    lines = table(monkeypatch, capsys, "test", "--wrong")
    assert [line[0] for line in lines[2:]] == ["test/v1", "test/v2"]
    assert lines[2] == ["test/v1", "run", "jump", "0.900", "3"]
    top = table(monkeypatch, capsys, "test", "--wrong", "--top", "1")
    assert [line[0] for line in top[2:]] == ["test/v1", "... and 1 more; --top 0 shows all"]
    assert len(table(monkeypatch, capsys, "test", "--top", "0")) == 2 + 4


@pytest.mark.parametrize(
    "name",
    [
        "zero_shot_demo_unseen",
        "demo_unseen",
        "predictions/zero_shot_demo_unseen.parquet",
        "predictions/zero_shot_demo_unseen.safetensors",
    ],
)
def test_a_set_has_several_names(name):
    save("zero_shot_demo_unseen")
    assert prediction_files(name) == [Path("predictions/zero_shot_demo_unseen.parquet")]


def test_faults_are_told():
    with pytest.raises(ListError, match=r"found no predictions/test\.parquet.*`dvc repro`"):
        prediction_files(None)
    save("test")
    with pytest.raises(ListError, match=r"found no tset\.parquet.*test, zero_shot_demo_unseen"):
        prediction_files("tset")


def test_files_without_the_columns_are_refused(monkeypatch, capsys):
    Path("predictions").mkdir()
    parquet.write_table(pa.table({"video_id": ["a"], "label": [1]}), "predictions/test.parquet")
    monkeypatch.setattr("sys.argv", ["clipzoo", "predictions"])
    with pytest.raises(SystemExit):
        main()
    assert "missing key row 0.class" in (error := capsys.readouterr().err)
    assert "written by an older version: run the recipe" in error
    Path("predictions/test.parquet").write_bytes(b"no parquet")
    with pytest.raises(SystemExit):
        main()
    assert "test.parquet: cannot be read as parquet" in capsys.readouterr().err


def test_a_table_beside_the_tensors_of_other_videos_is_refused(monkeypatch, capsys):
    save("test")
    table = parquet.read_table("predictions/test.parquet")
    table = table.set_column(0, "video_id", [list("abcd")])
    parquet.write_table(table, "predictions/test.parquet")
    monkeypatch.setattr("sys.argv", ["clipzoo", "predictions", "test"])
    with pytest.raises(SystemExit):
        main()
    assert "test.safetensors has 4, fingerprint" in capsys.readouterr().err


def test_escape_codes_of_names_are_shown(monkeypatch, capsys):
    """A terminal would obey them: change its title, move, color or hide the text."""
    monkeypatch.setattr("test_predictions_command.NAMES", ["run", "s\x1b[2Jit\x07", "jump\u202e"])
    save("test")
    table = parquet.read_table("predictions/test.parquet")
    ids = ["\x1b]0;title\x07", "a\rb", "ü 1", "\u200b"]
    table = table.set_column(0, "video_id", [ids])
    parquet.write_table(table, "predictions/test.parquet")
    Path("predictions/test.safetensors").unlink()
    monkeypatch.setattr("sys.argv", ["clipzoo", "predictions", "test"])
    main()
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    for text in (r"\x1b]0;title\x07", r"a\rb", "ü 1", r"s\x1b[2Jit\x07", r"jump\u202e"):
        assert text in shown
