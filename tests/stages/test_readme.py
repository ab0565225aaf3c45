"""The Python example of the README, in the folder of a finished demo."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_python_example_classifies_a_video(demo):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    video = next((demo.path / "data/raw/demo_unseen").rglob("*.mp4"))
    assert example.count("juggling.mp4") == 1
    done = subprocess.run(
        [sys.executable, "-c", example.replace("juggling.mp4", str(video))],
        cwd=demo.path,
        env=demo.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    label, probability, cosine = done.stdout.rsplit(maxsplit=2)
    assert label in ("juggling balls", "knitting")
    assert 0.5 <= float(probability) <= 1
    assert -1 <= float(cosine) <= 1
