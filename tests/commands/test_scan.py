"""`clipzoo scan` and the manifest."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from annotating import annotate
from clipzoo.__main__ import main
from clipzoo.commands.scan import ClassCount, scan
from clipzoo.data.spec import load_spec
from clipzoo.files import ListError
from clipzoo.frames.manifest import read_manifest
from clipzoo.report.recipes import load_recipes

ROOT = Path(__file__).parents[2]


def touch(root: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * (i + 1))
    return root


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["clipzoo", *arguments])
    main()


def test_own_videos_in_one_command(project, monkeypatch, capsys):
    root = touch(project / "my videos", "b_c/z.MP4", "a/x y.webm", "a/ü.mp4", "a/notes.txt")
    touch(root, ".hidden/v.mp4", "a/._x.mp4")
    run(monkeypatch, "scan", "mine", str(root))
    out = capsys.readouterr().out
    assert "3 videos" in out
    assert "2 classes: a, b c" in out
    assert "ignored 1 files without a video extension: a/notes.txt" in out
    assert "git add datasets/mine.yaml data/annotations/mine/classes.csv data/raw/mine.csv" in out
    assert "-S 'data.datasets=[mine]'" in out
    assert str(project) not in Path("datasets/mine.yaml").read_text()
    manifest = Path("data/raw/mine.csv").read_text()
    assert manifest == "video_id,path,size\na/x y,a/x y.webm,2\na/ü,a/ü.mp4,3\nb_c/z,b_c/z.MP4,1\n"
    assert [v.size for v in read_manifest(Path("data/raw/mine.csv"))] == [2, 3, 1]
    assert Path("data/raw/mine").resolve() == root.resolve()


def test_the_videos_of_each_class_are_counted(project, monkeypatch, capsys):
    """As build_lists will divide them: a fifth for validation, at least one and never all."""
    counts = {"a": 9, "b": 3, "c": 1, "d": 21, "e": 30, "f_g": 4, "h": 10}
    names = [f"{name}/{i}.mp4" for name, num in counts.items() for i in range(num)]
    root = touch(project / "v", *names)
    classes = {c.name: (c.num_train, c.num_val) for c in scan("mine", root).classes}
    assert classes == {
        "a": (7, 2),
        "b": (2, 1),
        "c": (1, 0),
        "d": (17, 4),
        "e": (24, 6),
        "f g": (3, 1),
        "h": (8, 2),
    }
    run(monkeypatch, "scan", "mine", str(root))
    out = capsys.readouterr().out
    assert "videos of a class: 1 to 30, median 9; the classes with the fewest:" in out
    table = [line.split() for line in out.split("Train  Val\n")[1].splitlines()[:5]]
    assert [row[0] for row in table] == ["c", "b", "f", "a", "h"]
    assert table[1] == ["b", "3", "2", "1"]
    assert "few-shot lists (data.shots): none; missing: 2, 4, 8, 16" in out
    shutil.rmtree(root / "c")
    run(monkeypatch, "scan", "mine", str(root))
    assert re.search(
        r"\(data\.shots\): 2; missing: 4, 8, 16, .* 'b' \(2 for", capsys.readouterr().out
    )


def test_counts_of_train_and_val_folders_are_those_of_the_folders(project, monkeypatch, capsys):
    names = [f"train/{name}/{i}.mp4" for name in "ab" for i in range(16)]
    root = touch(project / "v", *names, "val/a/1.mp4", "val/b/1.mp4")
    assert scan("mine", root).classes == [ClassCount("a", 16, 1), ClassCount("b", 16, 1)]
    run(monkeypatch, "scan", "mine", str(root))
    out = capsys.readouterr().out
    assert "videos of a class: 17 to 17, median 17\n" in out
    assert "few-shot lists (data.shots): 2, 4, 8, 16\n" in out


def test_git_sees_the_files_to_track_and_not_the_link(project, tmp_path_factory):
    root = touch(tmp_path_factory.mktemp("videos"), "a/1.mp4", "a/2.mp4", "b/1.mp4")
    shutil.copy(ROOT / ".gitignore", project)
    (project / "data/raw").mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], check=True)
    summary = scan("mine", root)
    assert Path(summary.link).is_symlink()
    (project / "data/raw/mine.csv.dvc").touch()  # of a user who tracks videos by `dvc add`
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
    )
    untracked = {line.removeprefix("?? ") for line in status.stdout.splitlines()}
    expected = {".gitignore", "params.yaml", "data/raw/mine.csv.dvc"}
    assert untracked == expected | set(summary.written)


def test_edited_class_names_are_kept(project):
    root = touch(project / "v", "run_fast/a.mp4")
    scan("mine", root)
    classes = Path("data/annotations/mine/classes.csv")
    classes.write_text(classes.read_text().replace("run fast", "running fast"))
    touch(root, "sit_down/a.mp4")
    assert [c.name for c in scan("mine", root).classes] == ["running fast", "sit down"]


def test_train_and_val_folders_are_no_classes(project):
    root = touch(project / "v", "train/a/1.mp4", "val/a/1.mp4", "train/b/1.mp4", "val/b/2.mp4")
    assert [c.name for c in scan("mine", root).classes] == ["a", "b"]


def test_one_video_a_class_is_for_validation_alone(project):
    root = touch(project / "v", "a/1.mp4", "b/1.mp4")
    assert scan("mine", root).only_val
    assert load_spec("mine").val_fraction == 1
    touch(root, "b/2.mp4")
    assert not scan("mine", root).only_val
    assert not scan("other", touch(project / "w", "a/1.mp4", "a/2.mp4", "b/1.mp4")).only_val


def test_where_the_videos_are(project, monkeypatch):
    inside = touch(project / "data/raw/mine", "a/1.mp4")
    assert scan("mine", inside).link == ""
    other = touch(project / "other", "a/1.mp4")
    with pytest.raises(ListError, match="data/raw/mine exists and is not"):
        scan("mine", other)
    monkeypatch.setenv("CLIPZOO_DATA", str(project / "big"))
    assert scan("far", touch(project / "big" / "far", "a/1.mp4")).link == ""
    with pytest.raises(ListError, match=r"\(CLIPZOO_DATA\) is not"):
        scan("far", other)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no videos found"),
        (("a/x.txt",), "no videos found .* 1 other files"),
        (("a/x.mp4", "a/x.avi"), "a/x.avi and a/x.mp4 have the same id, 'a/x'"),
        (("x.mp4", "a/y.mp4"), r"1 videos are in no class folder \(x\); use CLASS/VIDEO"),
        (("train/x.mp4", "val/a/y.mp4"), "use train/CLASS/VIDEO and val/CLASS/VIDEO"),
        (("a/x\n.mp4",), "video id"),
    ],
)
def test_bad_folders_leave_nothing_behind(project, names, message):
    (project / "v").mkdir()
    with pytest.raises(ListError, match=message):
        scan("mine", touch(project / "v", *names))
    assert not Path("datasets/mine.yaml").exists()
    assert not Path("data").exists()


def test_errors_are_one_line_and_exit_code_1(project, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "scan", "mine", "/does/not/exist")
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert err == (
        "error: /does/not/exist: no such folder; give the folder that holds the dataset's videos\n"
    )
    with pytest.raises(ListError, match=r"dataset: found '\.\./x'"):
        scan("../x", project)


def test_links_in_a_circle_end(project):
    root = touch(project / "v", "a/1.mp4")
    (root / "a" / "again").symlink_to(root, target_is_directory=True)
    assert scan("mine", root).num_videos == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/1,a/1.mp4", "mine.csv:3: found 2 fields"),
        ("a/1,a/1.mp4,-4", "mine.csv:3: size: found '-4'; allowed: a whole number of bytes"),
        ("a/1,/etc/passwd,4", "mine.csv:3: absolute path"),
        ("a/../../1,a/1.mp4,4", "mine.csv:3: .* leaves the dataset's root"),
        ("a/0,a/0.avi,4", "mine.csv:3: video 'a/0' is in line 2 too"),
    ],
)
def test_bad_manifests(tmp_path, line, message):
    path = tmp_path / "mine.csv"
    path.write_text(f"video_id,path,size\na/0,a/0.mp4,1\n{line}\n")
    with pytest.raises(ListError, match=message):
        read_manifest(path)


def test_no_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(ListError, match="run `clipzoo scan mine FOLDER` first"):
        read_manifest(tmp_path / "mine.csv")
    (tmp_path / "mine.csv").write_text("video_id,path,size\n")
    with pytest.raises(ListError, match="lists no videos"):
        read_manifest(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    "name", ["x; touch pwned", "$(id)", "a'b", "a b", "..", "a/b", "-x", "", "a\n", "x.csv"]
)
def test_a_name_for_a_shell_or_another_folder_is_refused(project, name):
    root = touch(project / "v", "a/1.mp4", "a/2.mp4")
    with pytest.raises(ListError) as error:
        scan(name, root)
    assert f"dataset: found {name!r}; allowed: 1 to 100 letters" in str(error.value)
    assert not list(Path("datasets").iterdir())


@pytest.mark.parametrize("name", ["2024", "010", "1e5", "true", "null", "2024-01-01"])
def test_a_name_that_yaml_reads_as_a_number_or_word_is_refused(project, name):
    """The printed lines and commands write it without quotes."""
    root = touch(project / "v", "a/1.mp4", "a/2.mp4")
    with pytest.raises(ListError, match=f"dataset: found '{name}'; allowed: a name that YAML"):
        scan(name, root)


HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS = {
    "train.csv": HEADER + "a,aaaaaaaaaa1,1,11,train\nb,bbbbbbbbbb1,0,10,train\n",
    "val.csv": HEADER + "a,aaaaaaaaaa2,5,15,val\nb,bbbbbbbbbb2,7,17,val\n",
}
PATTERN = "id_pattern: (.{11})(?:_[0-9]{6}_[0-9]{6})?\n"
FILES = (
    "train/aaaaaaaaaa1_000001_000011.mp4",
    "replacement/replacement_for_corrupted_k400/aaaaaaaaaa1_000001_000011.mp4",
    "train/bbbbbbbbbb1_000000_000010.mp4",
    "val/aaaaaaaaaa2_000005_000015.mp4",
    "test/cccccccccc1_000005_000015.mp4",
)


def test_all_that_is_wrong_with_a_copy_is_told_by_the_scan(project, monkeypatch, capsys):
    annotate("kinetics", KINETICS, PATTERN)
    root = touch(project / "k", *FILES)
    run(monkeypatch, "scan", "mine", str(root))
    out = capsys.readouterr().out
    assert "1 of 4 annotated videos are not in the manifest" in out
    assert "1 annotated videos have several files (replacement/" in out
    assert "1 files are left out, as no annotation names them (test/cccccccccc1)" in out
    assert "`clipzoo missing mine --accept`" in out
    run(monkeypatch, "missing", "mine", "--accept")
    capsys.readouterr()
    run(monkeypatch, "scan", "mine", str(root))
    assert "1 are missing, all in data/annotations/mine/missing.csv" in capsys.readouterr().out
    Path("data/annotations/mine/val.csv").write_text(KINETICS["val.csv"] + "a,x,9,2,val\n")
    run(monkeypatch, "scan", "mine", str(root))
    assert "val.csv:4: found time_start '9'" in capsys.readouterr().out


def test_recipes_of_a_published_dataset_are_named(project, monkeypatch, capsys):
    """Not the settings of the demo, which fit own videos."""
    shutil.copytree(ROOT / "recipes", project / "recipes")
    shutil.copy(ROOT / "datasets/ucf101.yaml", project / "datasets")
    run(monkeypatch, "scan", "ucf101", str(touch(project / "u", "Jump/v_a.avi")))
    out = capsys.readouterr().out
    assert "put the official annotation files into data/annotations/ucf101/" in out
    assert "dvc exp run" not in out
    recipes = load_recipes(ROOT).values()
    count = sum("ucf101" in values["data.datasets"] for _, values in recipes)
    assert count >= 10
    assert f"{count} recipes use ucf101: actionclip/ucf101-vitb16-f32, " in out
    assert "next: clipzoo check actionclip/ucf101-vitb16-f32" in out
    run(monkeypatch, "scan", "mine", str(touch(project / "own", "a/1.mp4", "a/2.mp4")))
    assert "dvc exp run -S data.dataset=mine" in capsys.readouterr().out
