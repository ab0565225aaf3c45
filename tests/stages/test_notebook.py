"""examples/predict.ipynb: a valid notebook with outputs, whose cells run in a finished demo."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent.parent / "examples/predict.ipynb"
TEXT = NOTEBOOK.read_text(encoding="utf-8")
CONTENT: dict[str, Any] = json.loads(TEXT)
CODE = [cell for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
CHECKS = """
import numpy as np

assert found == model.predict(video.path, top=3)
assert set(other.labels) == set(classes) and abs(sum(other.probabilities) - 1) < 1e-5
own = dict(zip(found.labels, found.cosines))
for label, cosine in zip(other.labels, other.cosines):
    assert label not in own or abs(cosine - own[label]) < 1e-5
assert windows[0].start == 0 and all(a.end == b.start for a, b in zip(windows, windows[1:]))
assert all(abs(sum(window.probabilities) - 1) < 1e-4 for window in windows)
assert np.allclose(embeddings.norm(dim=1), 1)
assert list(result["cosine"]) == sorted(cosines.tolist(), reverse=True)[:3]
"""
"""What has to be true of the names that the cells leave."""


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_it_is_a_notebook_that_was_executed():
    assert (CONTENT["nbformat"], CONTENT["nbformat_minor"] >= 5) == (4, True)
    assert CONTENT["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in CONTENT["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in CONTENT["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        assert cell.keys() == keys | ({"execution_count", "outputs"} if cell in CODE else set())
    assert [cell["execution_count"] for cell in CODE] == [1, 2, 3, 4, 5]
    assert all(cell["outputs"] for cell in CODE)
    for cell in CODE:
        compile(source(cell), "cell", "exec")


def test_its_outputs_are_small_and_of_no_machine():
    assert len(TEXT) < 60_000
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}
    assert not re.search(r"/(home|root|tmp|work|Users)\b", TEXT)
    (first,) = CODE[0]["outputs"]
    assert "".join(first["text"]) == "48 classes, 240 videos\n"


@pytest.mark.slow
def test_its_cells_run_in_a_finished_demo(demo):
    code = "\n\n".join([*map(source, CODE), CHECKS])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=demo.path / "lists",  # as examples/, a folder of the repository
        env=demo.environment(MPLBACKEND="Agg", PYTHONPATH=str(demo.path / "src")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "48 classes, 48 videos"
    assert lines[1] == "is: a blue bar becoming large"
    assert [line.split()[-3:] for line in lines if "probability" in line] == [
        ["label", "probability", "cosine"]
    ] * 2
    assert sum(line.endswith(" seconds") for line in lines) == 1
    assert lines[-5] == "of 10 videos:"
