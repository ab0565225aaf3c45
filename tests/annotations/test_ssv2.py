"""Something-Something V2's official files."""

import json
from typing import Any

import pytest

from annotating import annotate, ids, store_index
from clipzoo.annotations.class_names import LABEL_DIR, class_key
from clipzoo.annotations.joining import build_lists
from clipzoo.data.records import read_labels, read_list
from clipzoo.files import ListError

HOLDING, PUSHING = "Holding [something] next to [something]", "Pushing [something] off of [a shelf]"


def video(id_: str, template: str) -> dict[str, Any]:
    caption = template.replace("[something]", "a cup")
    return {"id": id_, "label": caption, "template": template, "placeholders": ["a cup"]}


def files(**changes: Any) -> dict[str, str]:
    train = [video("1", HOLDING), video("2", PUSHING)]
    values = {"train": train, "validation": [video("3", PUSHING), video("4", HOLDING)], **changes}
    return {f"{name}.json": json.dumps(value) for name, value in values.items()}


def test_classes_are_the_templates_without_brackets(params_for):
    annotate("ssv2", files())
    store_index({f"videos/{i}": 40 for i in range(1, 5)})
    build_lists(params_for("mine"), "mine")
    names = ["Holding something next to something", "Pushing something off of a shelf"]
    assert read_labels("lists/mine/labels.csv") == names
    assert ids("train") == ["videos/1", "videos/2"]
    assert [r.label for r in read_list("lists/mine/val.csv", 2)] == [1, 0]


def test_the_committed_names_are_templates_without_brackets():
    names = read_labels(LABEL_DIR / "ssv2.csv")
    assert len({class_key(name) for name in names}) == 174
    assert class_key(HOLDING) in map(class_key, names)
    assert not any(set("[]") & set(name) for name in names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {}}, r"train\.json: found a dict; allowed: a list of videos"),
        ({"train": [{"id": "1", "label": "x"}]}, r"train\.json: video 1: .*an id and a template"),
        ({"validation": ["1"]}, r"validation\.json: video 1: found '1'"),
    ],
)
def test_bad_files_are_refused(changes: dict[str, Any], message: str, params_for):
    annotate("ssv2", files(**changes))
    store_index({"1": 9})
    with pytest.raises(ListError, match=rf"(?s){message}"):
        build_lists(params_for("mine"), "mine")


def test_a_missing_file_is_named(params_for):
    annotate("ssv2", {"train.json": files()["train.json"]})
    store_index({"1": 9})
    with pytest.raises(ListError, match=r"validation\.json: no such file"):
        build_lists(params_for("mine"), "mine")
