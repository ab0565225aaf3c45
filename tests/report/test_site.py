"""report/index.html and the pages of runs: what they show, alone and in Chromium."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from browser import open_page
from clipzoo.evaluate.intervals import paired_interval
from clipzoo.files import json_sha256
from clipzoo.report.site import charts, measured
from clipzoo.report.site.measured import SetPlots, Video
from clipzoo.report.site.pages import Site, json_in_html, write_site
from clipzoo.report.summary import summarize, write_summary
from clipzoo.report.tables import read_report
from clipzoo.settings import training_settings

ROOT = Path(__file__).parents[2]
FOLDERS = ("metrics", "plots", "recipes", "lists")
RUNS = ("demo/head-none", "demo/bike-vcs", "demo/bike-attributes")
EVIL = "<script>alert(1)</script>"
EVIL_VIDEO = "<img src=x onerror=alert(2)>"
RUN = "demo+head-none.html"


def build(root: Path) -> Site:
    return write_site(read_report(root), root)


def page_of(root: Path, name: str = RUN) -> str:
    return (root / "report/site/runs" / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def few_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three runs of this one; a class and a video have hostile names."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copytree(ROOT / "lists", root / "lists")
    for run in RUNS:
        for kind in ("metrics", "plots"):
            shutil.copytree(ROOT / kind / run, root / kind / run)
    labels = root / "lists/demo_shapes/labels.csv"
    labels.write_text(labels.read_text().replace("a green bar becoming small", EVIL))
    videos = root / "plots/demo/head-none/test/videos.csv"
    first = next(
        cells[0]
        for cells in (line.split(",") for line in videos.read_text().splitlines()[1:])
        if cells[1] != cells[2]
    )
    for path in root.glob("plots/demo/*/test/videos.csv"):
        path.write_text(path.read_text().replace(first, EVIL_VIDEO))
    build(root)
    return root


@pytest.fixture
def root(few_runs: Path, tmp_path: Path) -> Path:
    """A copy of `few_runs` to change, with one run and a few recipes."""
    for folder in ("lists", "metrics/demo/head-none", "plots/demo/head-none"):
        shutil.copytree(few_runs / folder, tmp_path / folder)
    (tmp_path / "recipes/demo").mkdir(parents=True)
    for name in ("demo", "demo/head-none"):
        shutil.copy(few_runs / f"recipes/{name}.yaml", tmp_path / f"recipes/{name}.yaml")
    return tmp_path


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.slow
def test_pages_of_the_whole_zoo_are_small(tmp_path: Path):
    for folder in FOLDERS:
        (tmp_path / folder).symlink_to(ROOT / folder)
    site = build(tmp_path)
    assert site.pages >= 30
    written = sum(p.stat().st_size for p in (tmp_path / "report").rglob("*") if p.is_file())
    assert site.num_bytes == written < 4_000_000
    assert not list((tmp_path / "report").rglob("*.part"))


def test_built_twice_it_is_the_same(few_runs: Path):
    def content() -> dict[Path, bytes]:
        files = (few_runs / "report").rglob("*")
        return {path: path.read_bytes() for path in files if path.is_file()}

    before = content()
    build(few_runs)
    assert content() == before
    assert len(before) > 8


def test_links_lead_to_files_of_the_folder(few_runs: Path):
    folder = few_runs / "report"
    for page in folder.rglob("*.html"):
        for tag, attributes in Tags(page.read_text()).tags:
            for key in ("href", "src"):
                if link := attributes.get(key):
                    path = (page.parent / unquote(link.partition("#")[0])).resolve()
                    assert path.is_file(), (page, tag, link)
                    assert path.is_relative_to(folder)


def test_a_page_has_the_runs_results_settings_and_verdict(few_runs: Path):
    text = page_of(few_runs)
    for words in (
        "47.5 (41.3 to 53.8)",
        'id="verdict">reproduced',
        "The mean of the frame embeddings",
        "126 wrong videos of 240",
        "2 of 48 classes are right in all videos",
        "from which it starts",
    ):
        assert words in text
    row = re.search(r"<tr><td><code>text4vis.head</code></td><td>(\w+)</td><td>(\w+)</td>", text)
    assert row
    assert row.groups() == ("Transf", "None")
    assert {"Training loss", "Validation top-1 (%)"} <= set(
        re.findall(r"<figcaption>(.*?) <", text)
    )
    vcs = page_of(few_runs, "demo+bike-vcs.html")
    assert "<figcaption>Weights of the frames</figcaption>" in vcs
    assert "48 of 48 classes are right in all videos, so there is no confusion." in vcs
    assert "pictures/demo+bike-attributes/fused-weights.webp" in page_of(
        few_runs, "demo+bike-attributes.html"
    )


def test_text_of_others_is_no_markup(few_runs: Path):
    for page in (few_runs / "report").rglob("*.html"):
        text = page.read_text()
        assert EVIL not in text
        assert EVIL_VIDEO not in text
        tags = [tag for tag, _ in Tags(text).tags]
        assert tags.count("script") == (2 if page.name == "index.html" else 0)
    assert "&lt;script&gt;alert(1)" in page_of(few_runs)
    assert "&lt;img src=x onerror" in page_of(few_runs)


@pytest.mark.parametrize("text", ["</script><b>", "<!--", "\u2028", "]]>", "&lt;", '"'])
def test_json_cannot_end_its_script(text: str):
    embedded = json_in_html({text: [text]})
    assert not set("<>&\u2028") & set(embedded)
    assert json.loads(embedded) == {text: [text]}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("plots/demo/head-none/train/plots/metrics/loss.tsv", "Training loss: there is no"),
        ("plots/demo/head-none/test/videos.csv", "Classes and wrong videos: there is no"),
        ("plots/demo/head-none/test/settings.json", "Settings of test: not recorded"),
        ("plots/demo/head-none/test/pictures/examples.png", "Examples: "),
        ("metrics/demo/head-none/train.json", "Training: there is no train.json"),
        ("lists/demo_shapes/labels.csv", "Names of classes, which lists/demo_shapes/labels.csv"),
    ],
)
def test_what_is_missing_is_named(root: Path, path: str, words: str):
    (root / path).unlink()
    site = build(root)
    assert any(sentence.startswith(f"demo/head-none: {words}") for sentence in site.missing)
    assert words in page_of(root)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("plots/demo/head-none/test/videos.csv", "video_id,label,predicted\nx,a,1\n", "is damaged"),
        ("plots/demo/head-none/test/videos.csv", "video_id,label,predicted\nx,-1,1\n", "'-1'"),
        ("plots/demo/head-none/test/videos.csv", "id,label\nx,1\n", "found header"),
        ("plots/demo/head-none/test/videos.csv", "video_id,label,predicted\nx,1,1\n", "two runs"),
        ("plots/demo/head-none/train/plots/metrics/lr.tsv", "step\tlr\n0\tx\n", "is damaged"),
        ("plots/demo/head-none/train/plots/metrics/lr.tsv", "", "is damaged"),
        ("plots/demo/head-none/test/pictures/examples.png", "no picture", "cannot be read"),
        ("lists/demo_shapes/labels.csv", "id,name\n0,a\n", "without some of the ids 0 to 47"),
    ],
)
def test_what_is_damaged_is_named(root: Path, path: str, content: str, words: str):
    (root / path).write_text(content)
    (sentence,) = [s for s in build(root).missing if words in s]
    assert Path(path).name in sentence
    assert "47.5 (41.3 to 53.8)" in page_of(root), "the results are shown all the same"


def test_classes_without_names_have_numbers(root: Path):
    (root / "lists/demo_shapes/labels.csv").unlink()
    build(root)
    assert "class 47" in page_of(root)


def test_changed_settings_are_named_as_such(root: Path):
    path = root / "plots/demo/head-none/test/settings.json"
    settings = json.loads(path.read_text())
    assert "Settings that differ from those of its recipe" not in page_of_built(root)
    settings["train.lr"] = 0.5
    for name in ("test", "zero_shot_demo_unseen"):
        path = root / f"plots/demo/head-none/{name}/settings.json"
        path.write_text(json.dumps(settings))
        metrics = root / f"metrics/demo/head-none/{name}.json"
        values = json.loads(metrics.read_text())
        values["settings_sha256"] = json_sha256(settings)
        values["training_sha256"] = json_sha256(training_settings(settings))
        metrics.write_text(json.dumps(values))
    text = page_of_built(root)
    assert "Settings that differ from those of its recipe" in text
    assert "<code>train.lr</code></td><td>0.002</td><td>0.5</td>" in text


def test_released_weights_and_own_runs_are_told_apart(root: Path):
    for run in ("demo/head-none-released", "mine"):
        for kind in ("metrics", "plots"):
            shutil.copytree(root / kind / "demo/head-none", root / kind / run)
    build(root)
    released = page_of(root, "demo+head-none-released.html")
    assert "clipzoo zoo demo/head-none --released FILE" in released
    own = page_of(root, "mine.html")
    assert "Follows no recipe." in own
    assert "Run again" not in own
    assert "clipzoo zoo demo/head-none --again" in page_of(root)


def page_of_built(root: Path) -> str:
    build(root)
    return page_of(root)


def plots_of(pairs: list[tuple[int, int]], names: list[str]) -> SetPlots:
    videos = [Video(video_id=str(i), label=a, predicted=b) for i, (a, b) in enumerate(pairs)]
    return SetPlots(stem="test", dataset="d", videos=videos, class_names=names)


def test_counts_and_confusions():
    plots = plots_of([(0, 0), (0, 1), (1, 1), (2, 1), (2, 1), (2, 0)], ["a", "b"])
    counts = [(c.class_id, c.hits, c.videos, c.accuracy) for c in plots.counts()]
    assert counts == [(2, 0, 3, 0), (0, 1, 2, 50), (1, 1, 1, 100)]
    assert plots.confusions() == [(2, 1, 2), (0, 1, 1), (2, 0, 1)]
    assert plots.name_of(2) == "class 2"
    assert [video.video_id for video in plots.wrong()] == ["1", "3", "4", "5"]


def test_a_matrix_has_the_least_accurate_classes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(charts, "MAX_CLASSES", 2)
    table = charts.confusion(plots_of([(0, 0), (1, 2), (1, 1), (2, 0), (2, 2)], ["a", "b", "c"]))
    assert table is not None
    assert (table.rows, table.columns) == (["b", "c"], ["b", "c", "(other classes)"])
    cells = [(cell.row, cell.column, cell.count, cell.share) for cell in table.cells]
    assert cells == [(0, 0, 1, 0.5), (0, 1, 1, 0.5), (1, 1, 1, 0.5), (1, 2, 1, 0.5)]
    assert table.num_classes == 3
    assert charts.confusion(plots_of([], [])) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 359], [0, 100, 200, 300]),
        ([41.7, 47.5], [42, 44, 46]),
        ([0.0, 0.002], [0, 0.0005, 0.001, 0.0015, 0.002]),
        ([5, 5], [5]),
        ([-1.0, 1.0], [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(values: list[float], expected: list[float]):
    assert charts.ticks(values) == pytest.approx(expected)


def test_a_curve_is_drawn_within_its_frame_without_what_is_not_finite():
    line = charts.curve([(0, 2.0), (10, float("nan")), (20, 1.0)])
    assert line is not None
    places = [tuple(map(float, p.split(","))) for p in line.points.split(" ")]
    assert places == line.dots
    (left, top), (right, bottom) = places
    assert charts.LEFT == left < right == charts.WIDTH - charts.RIGHT
    assert charts.TOP == top < bottom == charts.HEIGHT - charts.BOTTOM
    assert charts.curve([(0, float("inf"))]) is None
    assert charts.curve([]) is None


def test_many_points_become_means():
    points = [(i, float(i % 2)) for i in range(1000)]
    thinned = measured.thinned(points, 100)
    assert len(thinned) == 100
    assert thinned[0] == (9, 0.5)
    assert thinned[-1] == (999, 0.5)
    assert measured.thinned(points[:3], 100) == points[:3]


def test_the_summary_has_the_same_keys_for_every_recipe(few_runs: Path):
    rows = read_report(few_runs).rows
    for run in ("demo/head-none", "demo/bike-vcs"):
        summary = summarize(rows, run)
        assert list(summary) == ["top1", "demo_unseen", "verdict"]
    fused = summarize(rows, "demo/bike-attributes")
    assert list(fused) == ["fused_top1", "top1", "verdict"]
    only_map = [row for row in rows if row.recipe == RUNS[0] and row.metric == "map"]
    assert list(summarize(only_map, RUNS[0])) == ["map", "verdict"]
    write_summary(rows, "demo/head-none", few_runs)
    written = json.loads((few_runs / "summary.json").read_text())["summary"]
    assert written == {
        "top1": 47.5,
        "demo_unseen": {"full_top1": 42.5, "gain": 24.583333},
        "verdict": "reproduced (within 5)",
    }


def test_the_table_is_filtered_and_sorted_in_a_browser(few_runs: Path):
    with open_page() as (page, record):
        page.goto((few_runs / "report/index.html").as_uri())
        shown = page.locator("#zoo tbody tr:visible")
        everything = shown.count()
        assert page.locator("#count").inner_text().startswith(f"{everything} of ")
        page.fill("#search", "head-none zero-shot")
        assert {text.split("\t")[1] for text in shown.all_inner_texts()} == {"demo/head-none"}
        page.fill("#search", "")
        page.check("#all")
        assert shown.count() == page.locator("#zoo tbody tr").count() > everything
        page.uncheck("#all")
        page.select_option("#method", "bike")
        page.select_option("#status", "reproduced")
        rows = shown.all_inner_texts()
        assert rows
        assert all("bike" in row and "reproduced" in row for row in rows)
        page.click("button[type=reset]")
        shown.nth(everything - 1).wait_for()
        for order, better in (("ascending", min), ("descending", max)):
            page.click("th:has-text('Ours') button")
            assert page.locator("th:has-text('Ours')").get_attribute("aria-sort") == order
            cells = [
                float(v)
                for v in page.locator("#zoo td:nth-child(4)").evaluate_all(
                    "cells => cells.map(c => c.dataset.value).filter(v => v !== '')"
                )
            ]
            assert cells == sorted(cells, reverse=better is max)
            last = page.locator("#zoo tbody tr").last.locator("td:nth-child(4)")
            assert last.get_attribute("data-value") == "", "what was not run comes last"
        assert record.errors == []
        assert record.outside() == []
        assert all(address.startswith("file://") for address in record.requests)


def test_two_runs_are_compared_in_a_browser(few_runs: Path):
    index = (few_runs / "report/index.html").as_uri()
    with open_page() as (page, record):
        page.goto(index)
        compare = page.locator("#compare")
        assert compare.is_disabled()
        for run in ("demo/bike-vcs", "demo/head-none"):
            page.locator(f".pick[value='{run}']").first.check()
        compare.click()
        comparison = page.locator("#comparison")
        comparison.locator("h2").wait_for()
        text = comparison.inner_text()
        assert "+52.5 (+46.2 to +58.7)\t126\t0\tthe first" in text
        assert "100.0 (98.4 to 100.0)\t47.5 (41.3 to 53.8)\t+52.5" in text
        assert f"{EVIL}\tdemo_shapes\t100.0\t0.0\t+100.0" in text
        assert "model.method\tbike\ttext4vis" in text
        assert comparison.locator("svg.curve").count() == 2
        images = comparison.locator("img")
        assert images.count() == 2
        images.evaluate_all("images => Promise.all(images.map(image => image.decode()))")
        assert page.url == f"{index}#compare=demo/bike-vcs,demo/head-none"
        page.goto("about:blank")
        page.goto(f"{index}#compare=demo/head-none,demo/bike-attributes")
        assert "demo/head-none and demo/bike-attributes" in comparison.inner_text()
        for wrong, words in (("x,y", "There is no run x, y"), ("%E0", "There is no run %E0")):
            page.evaluate("hash => { location.hash = hash }", f"compare={wrong}")
            page.locator("#comparison", has_text=words).wait_for()
        page.evaluate("location.hash = ''")
        comparison.wait_for(state="hidden")
        for counts in ((12, 3, 240), (0, 0, 240), (1, 0, 6), (138, 0, 240)):
            expected = paired_interval(*counts)
            found = page.evaluate("counts => pairedInterval(...counts)", list(counts))
            assert found == pytest.approx(expected, abs=1e-9)
        assert record.errors == []
        assert record.outside() == []


@pytest.mark.parametrize("width_px", [400, 1400])
def test_pages_of_runs_open_in_a_browser(few_runs: Path, width_px: int):
    with open_page(width_px) as (page, record):
        for path in sorted((few_runs / "report").rglob("*.html")):
            page.goto(path.as_uri())
            page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
            widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], "only tables are scrolled sideways"
        page.goto((few_runs / "report/site/runs" / RUN).as_uri())
        assert EVIL in page.locator(".classes").first.inner_text()
        page.click("text=126 wrong videos")
        assert EVIL_VIDEO in page.locator(".videos").first.inner_text()
        assert record.errors == []
        assert record.outside() == []
