"""Write report/index.html, its table and comparisons, and a page for each run beside it.

A page loads nothing but files of this folder, so it can be opened from the disk, copied or put on
any server. Equal results give equal bytes. All text of results, recipes, classes and videos is
escaped by the templates, or is JSON that the script writes as text.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from clipzoo.files import replacing, replacing_folder, shown
from clipzoo.report.site import charts
from clipzoo.report.site.compared import compared_values
from clipzoo.report.site.runs import (
    MOST_CONFUSIONS,
    MOST_WRONG,
    SITE_DIR,
    Page,
    address,
    make_lines,
    make_page,
)
from clipzoo.report.tables import Report, delta_text, value_text, videos_text

INDEX_FILE = "report/index.html"
HERE = Path(__file__).parent
STATIC = ("style.css", "zoo.js")
WEBP_QUALITY = 75
"""Of the pictures: a seventh of the png files, with letters that stay sharp."""
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters of JSON that may end the script of a page, or its line, if they are not escaped."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What was written."""

    pages: int
    num_bytes: int
    missing: list[str]
    """`<run>: <what its page cannot show, and why>`."""


def write_site(report: Report, root: str | Path = ".") -> Site:
    """Write `INDEX_FILE` and `SITE_DIR` under `root`.

    Raises:
        ListError, ConfigError: the settings of a run are damaged (`load_settings`).
    """
    root = Path(root)
    pages = [make_page(name, report, root) for name in report.metrics if name]
    templates = _templates()
    with replacing_folder(root / SITE_DIR) as folder:
        for name in STATIC:
            shutil.copyfile(HERE / "static" / name, folder / name)
        (folder / "runs").mkdir()
        for page in pages:
            _write_pictures(page, folder)
            text = templates.get_template("run.html.j2").render(page=page, site="../")
            (folder / page.file).write_text(text, encoding="utf-8")
        index = _index(templates, report, pages)
        with replacing(root / INDEX_FILE, durable=False) as part:
            part.write_text(index, encoding="utf-8")
    files = [root / INDEX_FILE, *(p for p in (root / SITE_DIR).rglob("*") if p.is_file())]
    return Site(
        pages=len(pages),
        num_bytes=sum(path.stat().st_size for path in files),
        missing=[
            f"{page.name}: {sentence}"
            for page in pages
            for sentence in [*page.missing, *(m for plots in page.sets for m in plots.missing)]
        ],
    )


def _index(templates: Environment, report: Report, pages: list[Page]) -> str:
    names = {plots.dataset: plots.class_names for page in pages for plots in page.sets}
    data = {"classes": names, "runs": {page.name: compared_values(page) for page in pages}}
    unlisted = [
        (name, recipe.about)
        for name, (recipe, _) in report.recipes.items()
        if name not in {row.recipe for row in report.rows}
    ]
    return templates.get_template("index.html.j2").render(
        lines=make_lines(report),
        pages=pages,
        unlisted=unlisted,
        data=json_in_html(data),
        site="site/",
    )


def _write_pictures(page: Page, folder: Path) -> None:
    """Write the pictures of a page; one that cannot be read is taken from it, and named there."""
    for plots in page.sets:
        for title, path in list(plots.pictures.items()):
            target = folder / page.picture(plots, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with Image.open(path) as image:
                    image.convert("RGB").save(target, "WEBP", quality=WEBP_QUALITY, method=4)
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                target.unlink(missing_ok=True)
                del plots.pictures[title]
                plots.missing.append(f"{title}: {path.name} cannot be read: {error}")


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,  # of every template, whatever its name is
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"address": address, "shown": shown}
    templates.globals |= {
        "charts": charts,
        "confusion": charts.confusion,
        "delta": delta_text,
        "value": value_text,
        "videos": videos_text,
        "most_confusions": MOST_CONFUSIONS,
        "most_wrong": MOST_WRONG,
    }
    return templates


def json_in_html(values: Any) -> str:
    """JSON for a `<script type="application/json">`, which no text in it can end."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter, escape in UNSAFE.items():
        text = text.replace(letter, escape)
    return text
