"""Class-to-video retrieval: whether a sentence on a class finds a video of it among all videos.

As `clipzoo search` does: a video is one embedding of unit length, a sentence another, and the
videos are ordered by their cosine with the sentence.

    query k: "a red bar becoming large"         rank   1     2     3     4     5     6
    videos by cosine, * = of class k                   .     .     *     .     *     .
                                                        recall at 1: no; at 5: yes; at 10: yes

Recall at R is the share of queries with a relevant video among the R nearest ones, the R@k of text
to video retrieval (MSR-VTT, from Yu et al., arXiv 1808.02559, on). There each caption has one
relevant video. Here a query has all videos of its class, of which one is enough; so the values are
higher, and are not to be compared with those of caption data sets.
"""

import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.evaluate import metrics
from clipzoo.evaluate.scoring import SCORED_AT_ONCE, Scored

RANKS = (1, 5, 10)


def compare_retrieval(tuned: Scored, raw: Scored) -> dict[str, float]:
    """The metrics of `evaluate_retrieval` for a fine-tuned model and, with the prefix `raw_`, for
    the raw CLIP; and class_to_video_num_queries, the number of queries of each, over which the
    intervals are."""
    num_queries = len(torch.unique(tuned.labels))
    values = {"class_to_video_num_queries": num_queries} | evaluate_retrieval(tuned)
    return values | {f"raw_{key}": value for key, value in evaluate_retrieval(raw).items()}


def evaluate_retrieval(scored: Scored) -> dict[str, float]:
    """class_to_video_recall1, class_to_video_recall5 and class_to_video_recall10 in percent, each
    with its Wilson interval over the queries.

    A query is the mean of a class's prompts, embedded (`ClassText.ensemble`); each class with a
    video is one. Among videos with equal cosines the first of the list comes first.

    Args:
        scored: all videos, with one label each.
    """
    labels = scored.labels
    present = torch.unique(labels)  # [Q] int64, ascending
    queries = scored.text.ensemble()[present]  # [K, D] -> [Q, D]
    cosines = queries @ video_embeddings(scored.embedding_parts(scored.features)).T  # [Q, N]
    relevant = labels == present[:, None]  # [Q, N]
    # The best relevant video of each query; its rank among all videos decides.
    best = metrics.first_of_highest(cosines.masked_fill(~relevant, -torch.inf))  # [Q]
    values = {}
    for k in RANKS:
        found = metrics.in_top_k(cosines, best, k)  # [Q]
        values |= metrics.accuracy(f"class_to_video_recall{k}", found)
    return values


def video_embeddings(features: Tensor) -> Tensor:
    """One embedding of each video, [N, D] float32 of unit length, from features [N, V, D] or
    [N, V, T, D] of any float type: the mean over views and frames."""
    parts = [part.float().flatten(1, -2).mean(dim=1) for part in features.split(SCORED_AT_ONCE)]
    return functional.normalize(torch.cat(parts), dim=-1)  # [<= SCORED_AT_ONCE, D] each -> [N, D]
