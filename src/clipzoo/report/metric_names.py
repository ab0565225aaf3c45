"""The metrics of the files that the report reads, and their names in words."""

TEST_RESULTS = {
    "top1": "top-1",
    "top5": "top-5",
    "authors_top1": "top-1, authors' protocol",
    "authors_top5": "top-5, authors' protocol",
    "mean_class_accuracy": "mean class accuracy",
    "map": "mAP",
    "authors_map": "mAP, authors' protocol",
    "base_top1": "base classes, top-1",
    "novel_top1": "novel classes, top-1",
    "base_to_novel_hmean": "base to novel, harmonic mean",
    "single_view_top1": "single view, top-1",
    "single_view_top5": "single view, top-5",
    "single_view_mean_class_accuracy": "single view, mean class accuracy",
    "single_view_map": "single view, mAP",
}
FUSED_RESULTS = {
    "fused_top1": "fused, top-1",
    "fused_top5": "fused, top-5",
    "fused_best_top1": "fused by the best weight in training, top-1",
    "fused_best_top5": "fused by the best weight in training, top-5",
    "video_top1": "video branch, top-1",
    "video_top5": "video branch, top-5",
    "attributes_top1": "attributes branch, top-1",
    "attributes_top5": "attributes branch, top-5",
    "fused_gain_over_video": "gain of the fusion over the video branch",
    "fused_gain_over_attributes": "gain of the fusion over the attributes branch",
}
ZERO_SHOT_RESULTS = {
    "full_top1": "zero-shot top-1",
    "full_top5": "zero-shot top-5",
    "half_top1_mean": "zero-shot top-1, half of the classes",
    "splits_top1_mean": "zero-shot top-1, mean of the splits",
    "listed_top1": "zero-shot top-1, videos of one split",
    "listed_top5": "zero-shot top-5, videos of one split",
    "fixed_half_top1_mean": "zero-shot top-1, fixed halves of the classes",
    "splits_top5_mean": "zero-shot top-5, mean of the splits",
    "interpolated_top1": "zero-shot top-1, interpolated weights",
    "raw_full_top1": "raw CLIP, zero-shot top-1",
    "raw_full_top5": "raw CLIP, zero-shot top-5",
    "raw_half_top1_mean": "raw CLIP, zero-shot top-1, half of the classes",
    "gain": "gain in zero-shot top-1 over the raw CLIP",
    "class_to_video_recall1": "class-to-video retrieval, recall at 1",
    "class_to_video_recall5": "class-to-video retrieval, recall at 5",
    "class_to_video_recall10": "class-to-video retrieval, recall at 10",
    "raw_class_to_video_recall1": "raw CLIP, class-to-video retrieval, recall at 1",
    "raw_class_to_video_recall5": "raw CLIP, class-to-video retrieval, recall at 5",
    "raw_class_to_video_recall10": "raw CLIP, class-to-video retrieval, recall at 10",
}
RESULTS = {"test": TEST_RESULTS, "fused": FUSED_RESULTS, "zero_shot": ZERO_SHOT_RESULTS}
"""The results of each kind of metrics file, and their names."""
NAMES = TEST_RESULTS | FUSED_RESULTS | ZERO_SHOT_RESULTS
FEWER_VIDEOS = {
    "authors_top1": "authors_num_videos",
    "authors_top5": "authors_num_videos",
    "listed_top1": "listed_num_videos",
    "listed_top5": "listed_num_videos",
}
"""Results over fewer videos than those of the file, and the key of their number. The authors' tests
drop the last, partial batch; an official split may leave videos out."""
OTHER_INTERVALS = {"base_top1", "novel_top1"}
"""Accuracies over a part of the videos, which have no interval."""


def interval_of(key: str) -> list[str]:
    """Keys of the two ends of a result's 95% interval, which its file has; [] = it has none."""
    paired = key == "gain" or key.startswith("fused_gain_")
    if not (paired or "class_to_video_recall" in key) and (
        not key.endswith("top1") or key in OTHER_INTERVALS
    ):
        return []
    return [f"{key}_ci95_low", f"{key}_ci95_high"]


def deviation_of(key: str) -> list[str]:
    """Key of a mean's standard deviation: `half_top1_std` of `half_top1_mean`; [] = no mean."""
    return [f"{key.removesuffix('_mean')}_std"] if key.endswith("_mean") else []


def kind_of(stem: str) -> str:
    """`zero_shot` of `zero_shot_<dataset>`; any other stem of a metrics file as it is."""
    return "zero_shot" if stem.startswith("zero_shot_") else stem
