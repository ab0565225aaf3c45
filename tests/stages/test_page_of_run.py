"""`clipzoo serve` with the model of a run: what it answers is what `clipzoo predict` prints."""

import http.client
import json
import shlex
import subprocess
import sys
from urllib.parse import quote

import pytest

from clipzoo import __main__
from clipzoo.config import load_params
from clipzoo.serve.folder import model_of_run
from clipzoo.serve.model import VideoModel
from clipzoo.serve.page.server import Settings, serving
from videos import make_video


@pytest.mark.parametrize(
    "classes", [None, ["a red bar becoming large", "<b>bold</b>"], ["a, b", "c"]], ids=str
)
def test_its_answer_is_that_of_the_command(demo, monkeypatch, capsys, tmp_path, classes):
    monkeypatch.chdir(demo.path)
    model = VideoModel(model_of_run(load_params()), "cpu")
    path = make_video(tmp_path / "my video.mp4", 100, fps=4)  # 25 s
    query = f"name={quote(path.name)}"
    query += f"&classes={quote(chr(10).join(classes))}" if classes else ""
    settings = Settings(host="127.0.0.1", port=0, max_bytes=10**7, options=["--device", "cpu"])
    with serving(model, settings) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request("POST", f"/predict?{query}", path.read_bytes())
        lines = [json.loads(line) for line in connection.getresponse().read().splitlines()]
        connection.close()
    answer = {key: value for line in lines for key, value in line.items()}

    *files, of_video, of_windows = answer["commands"]
    for line in files:
        subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)

    def printed(command: str) -> list[dict]:
        words = [
            str(tmp_path / word) if word in (path.name, "classes.txt") else word
            for word in shlex.split(command)
        ]
        monkeypatch.setattr(sys, "argv", [*words, "--json"])
        __main__.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (whole,) = printed(of_video)
    found = answer["prediction"]
    assert found["labels"] == [row["label"] for row in whole["predictions"]]
    scores = [row["score"] for row in whole["predictions"]]
    assert found["probabilities"] == pytest.approx(scores, abs=1e-6)
    assert found["cosines"] == pytest.approx(
        [row["cosine"] for row in whole["predictions"]], abs=1e-6
    )
    assert found["num_frames"] == len(whole["frames"]) == len(answer["pictures"])
    assert [one["seconds"] for one in answer["pictures"]] == whole["seconds"]

    windows = printed(of_windows)
    curve, best = answer["curve"], [window["predictions"][0] for window in windows]
    assert curve["best"] == [[x["label"], pytest.approx(x["score"], abs=1e-6)] for x in best]
    for key in ("start", "end"):
        assert curve[f"{key}s"] == pytest.approx([window[key] for window in windows])
    assert windows[-1]["end"] == pytest.approx(25)
