"""Annotation files and dataset files that would hang, run code or leave their folder."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotating import annotate
from clipzoo.annotations.annotation import Source
from clipzoo.annotations.class_names import name_classes
from clipzoo.annotations.formats import PARSERS
from clipzoo.annotations.peer_lists import guess_format, read_entries
from clipzoo.clips.attributes import read_attributes
from clipzoo.config import ConfigError
from clipzoo.data.ledger import LEDGER_NAME, read_ledger
from clipzoo.data.records import read_labels, read_list
from clipzoo.data.spec import load_spec
from clipzoo.evaluate.lexicon import read_lexicon
from clipzoo.files import ListError, read_json
from clipzoo.frames.manifest import read_manifest
from clipzoo.yaml_files import read_yaml

FILES = {
    "activitynet": {"activity_net.v1-3.min.json": ""},
    "charades": {
        "Charades_v1_classes.txt": "c000 Holding\n",
        "Charades_v1_train.csv": "id,actions,length\n",
        "Charades_v1_test.csv": "",
    },
    "hmdb51": {"x_test_split1.txt": "a.avi 1\n", "y_test_split1.txt": ""},
    "kinetics": {
        "train.csv": "label,youtube_id,time_start,time_end,split\n",
        "val.json": "{}",
    },
    "peer_lists": {"train.txt": "x/a 9 0\n", "val.txt": ""},
    "ucf101": {"classInd.txt": "1 x\n", "trainlist01.txt": "x/a.avi 1\n", "testlist01.txt": ""},
}


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    """Whoever waits for a named pipe, or matches forever, is interrupted."""

    def interrupt(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("form", "name"), [(form, name) for form in FILES for name in FILES[form]])
def test_an_annotation_file_that_is_a_named_pipe_is_refused_by_name(project, form, name):
    annotate(form, FILES[form])
    path = Path("data/annotations/mine") / name
    path.unlink()
    os.mkfifo(path)
    source = Source(path.parent, load_spec("mine"), 1, 0, [], True)
    with pytest.raises(ListError, match=rf"mine/{name}: is a named pipe; allowed: a regular file"):
        PARSERS[form](source)


READERS: dict[str, Callable[[Path], object]] = {
    "labels": read_labels,
    "list": lambda path: read_list(path, 2),
    "manifest": read_manifest,
    "guess": guess_format,
    "entries": lambda path: read_entries(path, "csv"),
    "attributes": read_attributes,
    "lexicon": lambda path: read_lexicon(str(path), "mine"),
    "json": read_json,
    "yaml": read_yaml,
}


@pytest.mark.parametrize("reader", READERS)
def test_whatever_reads_text_takes_regular_files_alone(tmp_path, reader):
    os.mkfifo(tmp_path / "a.txt")
    for path, kind in ((tmp_path / "a.txt", "a named pipe"), (tmp_path, "a folder")):
        with pytest.raises((ListError, ConfigError), match=f"{path}: is {kind}"):
            READERS[reader](path)


def test_class_names_and_ledgers_that_are_named_pipes_are_refused(params_for):
    annotate("ucf101", FILES["ucf101"])
    folder, spec = Path("data/annotations/mine"), load_spec("mine")
    annotations = PARSERS["ucf101"](Source(folder, spec, 1, 0, [], True))
    for name in ("labels.csv", LEDGER_NAME):
        os.mkfifo(folder / name)
    with pytest.raises(ListError, match=r"labels\.csv: is a named pipe"):
        name_classes(annotations, params_for("mine"), "mine", spec, folder)
    with pytest.raises(ListError, match=r"missing\.csv: is a named pipe"):
        read_ledger("mine")


@pytest.mark.parametrize("subset", [[], {}, ["training"], "x" * 1000])
def test_a_subset_that_is_no_word_is_a_fault_of_its_video(project, subset):
    database = {"v": {"subset": subset, "annotations": []}}
    annotate("activitynet", {"activity_net.json": json.dumps({"database": database})})
    source = Source(Path("data/annotations/mine"), load_spec("mine"), 1, 0, [], True)
    (fault,) = PARSERS["activitynet"](source).faults
    assert "'v': subset" in fault
    assert len(fault) < 300


SPECS = [
    ("id_pattern", r"((a+)+)b"),
    ("id_pattern", r"((a|aa)+)"),
    ("id_pattern", r"(a*){3}"),
    ("id_pattern", r"(?x)(a+) *"),
    ("id_pattern", r"(a{60000}){60000}"),
    ("id_pattern", r"(.*.*.*.*)x"),
    ("id_pattern", r"(a?a?a?a?a?)"),
    ("id_pattern", "(" * 5000 + "a" + ")" * 5000),
    ("frame_template", "{0.__class__}{:d}.jpg"),
    ("frame_template", "{folder.__class__}{:d}.jpg"),
    ("frame_template", "{!r}.jpg"),
    ("frame_template", "{:0999999999d}.jpg"),
    ("frame_template", "{folder:>999999999}{:d}.jpg"),
    ("frame_template", "{:{:d}}.jpg"),
    ("frame_template", "../{:05d}.jpg"),
    ("frame_template", "/etc/{:05d}.jpg"),
    ("frame_template", "{:05d}/../../x.jpg"),
    ("num_train", []),
    ("num_val", []),
    ("first_index", 10**30),
]


@pytest.mark.parametrize(("key", "value"), SPECS)
def test_values_of_a_dataset_file_that_could_hang_or_escape_are_refused(project, key, value):
    annotate("ucf101", {}, f"{key}: {json.dumps(value)}\n")
    with pytest.raises(ConfigError, match=rf"mine\.yaml: {key}: found .*; allowed: "):
        load_spec("mine")


@pytest.mark.parametrize("pattern", ["(a?a?a?a?.*.*.*)x", "(?:a|a)(?:a|a)(?:a|a)(?:a|a)(.*.*.*)x"])
def test_the_slowest_allowed_pattern_ends(project, pattern):
    annotate("ucf101", {}, f"id_pattern: '{pattern}'\n")
    start = time.monotonic()
    for name in ("a" * 255, "a" * 10**6):  # a file's name, and what an annotation may say
        assert load_spec("mine").video_id(f"folder/{name}") == f"folder/{name}"
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    ("pattern", "name", "video_id"),
    [
        (r"(.+)_(\d+)_(\d+)", "a_b_01_02", "a_b"),
        (r"(?:v_)?(.+?)(?:_s\d+)?(?:_\d+)?", "v_x_s1_22", "x"),
        (r"([^]a]{2})[)]\)*", "bc))", "bc"),
        (r"(x|y)z", "yz", "y"),
    ],
)
def test_usual_patterns_are_allowed(project, pattern, name, video_id):
    annotate("ucf101", {}, f"id_pattern: {json.dumps(pattern)}\n")
    assert load_spec("mine").video_id(f"f/{name}") == f"f/{video_id}"
