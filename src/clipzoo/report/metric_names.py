"""The metrics of the files that the report reads, and their names in words."""

# result's name: (key of the value, of its standard deviation, of its interval's two ends)
TEST_RESULTS = {
    "top-1": ("top1", "", "ci95"),
    "top-5": ("top5", "", ""),
    "top-1, authors' protocol": ("authors_top1", "", "authors_ci95"),
    "top-5, authors' protocol": ("authors_top5", "", ""),
    "mean class accuracy": ("mean_class_accuracy", "", ""),
    "mAP": ("map", "", ""),
    "mAP, authors' protocol": ("authors_map", "", ""),
    "base classes, top-1": ("base_top1", "", ""),
    "novel classes, top-1": ("novel_top1", "", ""),
    "base to novel, harmonic mean": ("base_to_novel_hmean", "", ""),
    "single view, top-1": ("single_view_top1", "", "single_view_ci95"),
    "single view, top-5": ("single_view_top5", "", ""),
    "single view, mean class accuracy": ("single_view_mean_class_accuracy", "", ""),
    "single view, mAP": ("single_view_map", "", ""),
}
FUSED_RESULTS = {
    "fused, top-1": ("fused_top1", "", "fused_ci95"),
    "fused, top-5": ("fused_top5", "", ""),
    "fused by the best weight in training, top-1": ("fused_best_top1", "", "fused_best_ci95"),
    "fused by the best weight in training, top-5": ("fused_best_top5", "", ""),
    "video branch, top-1": ("video_top1", "", "video_ci95"),
    "video branch, top-5": ("video_top5", "", ""),
    "attributes branch, top-1": ("attributes_top1", "", "attributes_ci95"),
    "attributes branch, top-5": ("attributes_top5", "", ""),
    "gain of the fusion over the video branch": (
        "fused_gain_over_video",
        "",
        "fused_gain_over_video_ci95",
    ),
    "gain of the fusion over the attributes branch": (
        "fused_gain_over_attributes",
        "",
        "fused_gain_over_attributes_ci95",
    ),
}
ZERO_SHOT_RESULTS = {
    "zero-shot top-1": ("full_top1", "", "ci95"),
    "zero-shot top-5": ("full_top5", "", ""),
    "zero-shot top-1, half of the classes": ("half_top1_mean", "half_top1_std", ""),
    "zero-shot top-1, mean of the splits": ("splits_top1_mean", "splits_top1_std", ""),
    "zero-shot top-5, mean of the splits": ("splits_top5_mean", "splits_top5_std", ""),
    "zero-shot top-1, interpolated weights": ("interpolated_top1", "", "interpolated_ci95"),
    "raw CLIP, zero-shot top-1": ("raw_full_top1", "", "raw_ci95"),
    "raw CLIP, zero-shot top-5": ("raw_full_top5", "", ""),
    "raw CLIP, zero-shot top-1, half of the classes": (
        "raw_half_top1_mean",
        "raw_half_top1_std",
        "",
    ),
    "gain in zero-shot top-1 over the raw CLIP": ("gain", "", "gain_ci95"),
}
FEWER_VIDEOS = {"authors_top1", "authors_top5"}
"""Results over `authors_num_videos`, the first ones of the list: the authors' tests drop the last,
partial batch."""
RESULTS = {"test": TEST_RESULTS, "fused": FUSED_RESULTS, "zero_shot": ZERO_SHOT_RESULTS}
"""The results by the kind of metrics file."""


def kind_of(stem: str) -> str:
    """`zero_shot` of `zero_shot_<dataset>`; any other stem of a metrics file as it is."""
    return "zero_shot" if stem.startswith("zero_shot_") else stem


def result_name(metric: str) -> str:
    """The words for a published metric's key."""
    names = {keys[0]: name for found in RESULTS.values() for name, keys in found.items()}
    return names[metric]
