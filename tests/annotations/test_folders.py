"""A label that is not the class of the video's folder is refused, whatever the format."""

import pytest

from annotating import annotate, ids, store_index
from clipzoo.annotations.joining import build_lists
from clipzoo.files import ListError

NAMES = "id,name\n0,hammer throw\n1,hammering\n2,sword\n"
TREE = {
    f"{folder}/v_{number}{folder}": 10
    for folder in ("Hammering", "HammerThrow", "sword")
    for number in range(2)
}
COLUMNS = "label,youtube_id,time_start,time_end,split\n"


def peer_lists(labels: dict[str, int], line: str) -> dict[str, str]:
    """train.txt and val.txt with one video of each class."""
    return {
        f"{kind}.txt": "".join(
            line.format(path=f"{folder}/v_{number}{folder}", label=label)
            for folder, label in labels.items()
        )
        for number, kind in enumerate(("train", "val"))
    }


@pytest.mark.parametrize(
    "line", ["{path}.avi {label}\n", "{path} 10 {label}\n", "{path}.avi,{label}\n"]
)
def test_lists_that_number_the_classes_otherwise(params_for, line):
    in_order = {"HammerThrow": 0, "Hammering": 1, "sword": 2}
    swapped = {**in_order, "HammerThrow": 1, "Hammering": 0}
    store_index(TREE)
    annotate("peer_lists", {**peer_lists(in_order, line), "labels.csv": NAMES})
    assert not build_lists(params_for("mine"), "mine").notes[0].startswith("4 of 6")
    annotate("peer_lists", peer_lists(swapped, line))
    with pytest.raises(ListError) as error:
        build_lists(params_for("mine"), "mine")
    text = str(error.value)
    assert "4 of 6 labels" in text
    assert "2 in HammerThrow/ labeled 'hammering', 2 in Hammering/ labeled 'hammer throw'" in text
    assert "val.txt:1: 'HammerThrow/v_1HammerThrow' is labeled 'hammering'" in text
    assert "trust_labels: true` in datasets/mine.yaml" in text
    assert "sword" not in text
    annotate("peer_lists", {}, "trust_labels: true\n")
    notes = build_lists(params_for("mine"), "mine").notes
    assert notes[0].startswith("4 of 6 labels are not the class of the folder (2 in HammerThrow/")


def test_official_files_and_a_tree_of_other_folders(params_for):
    """Kinetics' files name no folder: those of the videos on disk count."""
    rows = {"train": ["sword,aaa,0,10,t", "hammering,bbb,0,10,t"]}
    rows["val"] = ["sword,ccc,0,10,v", "hammering,ddd,0,10,v"]
    files = {f"{kind}.csv": COLUMNS + "\n".join(lines) for kind, lines in rows.items()}
    annotate("kinetics", files)
    found = {"aaa": "train/sword", "bbb": "train/Hammering", "ccc": "val/hammering", "ddd": "val/x"}
    store_index({f"{folder}/{id_}_000000_000010": 10 for id_, folder in found.items()})
    with pytest.raises(ListError, match=r"(?s)1 of 4 labels.*1 in hammering/ labeled 'sword'"):
        build_lists(params_for("mine"), "mine")
    found["ccc"] = "val/hammering/sword"  # some folder is the class
    store_index({f"{folder}/{id_}_000000_000010": 10 for id_, folder in found.items()})
    build_lists(params_for("mine"), "mine")
    assert ids("val") == ["val/hammering/sword/ccc_000000_000010", "val/x/ddd_000000_000010"]
