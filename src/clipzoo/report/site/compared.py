"""What index.html holds of each run, so that its script can set two of them side by side."""

import base64
from typing import Any

from clipzoo.files import json_sha256
from clipzoo.report.site.measured import SetPlots, thinned
from clipzoo.report.site.runs import Page, address, text_of
from clipzoo.report.tables import value_text

MOST_POINTS = 120
"""Points of a curve."""


def compared_values(page: Page) -> dict[str, Any]:
    """What the script compares of a run, as JSON."""
    return {
        "page": address(f"site/{page.file}"),
        "method": page.method,
        "verdict": page.verdict,
        "about": page.about,
        "results": [
            {
                "dataset": row.dataset,
                "result": row.result,
                "metric": row.metric,
                "protocol": row.protocol,
                "value": row.value,
                "text": value_text(row),
            }
            for row in {(r.dataset, r.metric): r for r in page.rows}.values()
        ],
        "curves": {
            key: [[step, float(f"{value:.5g}")] for step, value in thinned(points, MOST_POINTS)]
            for key, points in page.points.items()
            if key != "lr"
        },
        "sets": {plots.stem: _compared_set(page, plots) for plots in page.sets},
        "settings": {key: text_of(value) for key, value in (page.settings or {}).items()},
        "recorded": page.settings is not None,
    }


def _compared_set(page: Page, plots: SetPlots) -> dict[str, Any]:
    """One set: which videos are right, as bits in the order of ids, and each class's counts."""
    videos = sorted(plots.videos, key=lambda video: (video.video_id, video.label))
    bits = "".join("1" if video.label == video.predicted else "0" for video in videos)
    padded = bits + "0" * (-len(bits) % 8)
    packed = bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))
    same = json_sha256({"videos": [(video.video_id, video.label) for video in videos]})
    return {
        "dataset": plots.dataset,
        "videos": same[:16] if videos else "",
        "num": len(videos),
        "right": base64.b64encode(packed).decode(),
        "classes": [[c.class_id, c.hits, c.videos] for c in plots.counts()],
        "pictures": {
            title: address(f"site/{page.picture(plots, path)}")
            for title, path in plots.pictures.items()
        },
    }
