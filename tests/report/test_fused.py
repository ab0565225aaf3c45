"""Results of the stage `fuse` in the report."""

from pathlib import Path

from clipzoo.report.metric_names import NAMES
from clipzoo.report.results import make_rows


def test_a_fusion_has_rows_beside_its_parts(tmp_path: Path):
    about = {"dataset": "d", "protocol": "p", "num_videos": 4, "num_expected": 4}
    about |= {"videos_sha256": "0" * 64, "environment": "e"}
    accuracies = {}
    for name, top1 in (("fused", 81.5), ("video", 79.6), ("attributes", 70.1)):
        ends = {f"{name}_top1_ci95_low": top1 - 1, f"{name}_top1_ci95_high": top1 + 1}
        accuracies |= {f"{name}_top1": top1, f"{name}_top5": 95.0, **ends}
    gains = {"fused_gain_over_video": 1.9}
    gains |= {"fused_gain_over_video_ci95_low": 1.5, "fused_gain_over_video_ci95_high": 2.5}
    metrics = {"own": {"fused": about | {"fused_weight": 0.7} | accuracies | gains}}
    rows = {row.metric: row for row in make_rows(metrics, {}, tmp_path)}
    assert set(rows) == {
        *(f"{name}_top{k}" for name in ("fused", "video", "attributes") for k in (1, 5)),
        "fused_gain_over_video",
    }
    fused = rows["fused_top1"]
    assert (fused.value, fused.ci95_low, fused.ci95_high) == (81.5, 80.5, 82.5)
    assert (fused.result, fused.dataset, fused.num_videos) == ("fused, top-1", "d", 4)
    assert rows["fused_gain_over_video"].ci95_high == 2.5
    assert NAMES["fused_top1"] == "fused, top-1"
    assert NAMES["top1"] == "top-1"
