"""The Python example of the README, in the folder of a finished demo."""

import re
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_python_example_classifies_a_video(here, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    video = next((here / "data/raw/demo_unseen").rglob("*.mp4"))
    assert example.count("juggling.mp4") == 1
    exec(example.replace("juggling.mp4", str(video)), {})
    label, probability, cosine = capsys.readouterr().out.rsplit(maxsplit=2)
    assert label in ("juggling balls", "knitting")
    assert 0.5 <= float(probability) <= 1
    assert -1 <= float(cosine) <= 1
