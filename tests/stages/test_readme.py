"""The Python example of the README, in the folder of a finished demo."""

import csv
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_python_example_classifies_a_video(demo):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=demo.path,
        env=demo.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with open(demo.path / "lists/demo_unseen/labels.csv", encoding="utf-8", newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    video_id, predicted = done.stdout.strip().split(" shows ")
    assert video_id in (demo.path / "lists/demo_unseen/val.csv").read_text(encoding="utf-8")
    assert predicted in names
