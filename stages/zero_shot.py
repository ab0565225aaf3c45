"""zero_shot --dataset NAME: encode an unseen dataset once, measure every protocol (torchrun)."""

from functools import partial

from clipzoo.runtime.launch import dataset_argument, run_stage


def main() -> None:
    # Imported here, because the launching process runs this file too and needs none of it.
    from clipzoo.clips import encoding, selection
    from clipzoo.config import load_params
    from clipzoo.data.targets import label_tensor
    from clipzoo.evaluate import predictions
    from clipzoo.evaluate.interpolation import accuracy_curve, describe_choice
    from clipzoo.evaluate.protocols import compare_zero_shot, describe_views
    from clipzoo.evaluate.provenance import record_provenance
    from clipzoo.files import file_sha256, write_metrics
    from clipzoo.methods import MODEL_FILE, load_model, raw_model
    from clipzoo.models.clip import CLIP_FILE
    from clipzoo.models.text import load_class_text
    from clipzoo.runtime.distributed import say, world_size
    from clipzoo.train.memory import start_run

    dataset, (params, device) = dataset_argument(), start_run(load_params(), training=False)
    set_name, views = f"zero_shot_{dataset}", params.zero_shot
    text = load_class_text(dataset, params.text.templates)
    videos = selection.whole_set(params, dataset, text.num_classes)
    records, lists, share = videos.records, videos.lists, videos.share
    protocol = f"{describe_views(views.clips, views.crops)}, {share} videos ({' + '.join(lists)})"
    say(
        f"zero_shot {dataset}: {len(records)} videos, {text.num_classes} classes "
        f"({' and '.join(views.protocols)}), {protocol}; {MODEL_FILE} and {CLIP_FILE} "
        f"({params.model.arch}), {params.test.precision}, {world_size()} x {device.type}"
    )
    tuned = load_model(params)
    sampling = {"clips": views.clips, "crops": views.crops, "sampler": tuned.test_sampler}
    clips = encoding.open_views(params, dataset, records, **sampling)
    scores, features, texts = {}, {}, {}
    for prefix, model in (("", tuned.for_zero_shot()), ("raw_", raw_model())):
        part = encoding.encode_set(model, clips, prefix + set_name, params=params, device=device)
        if part is not None:  # rank 0 has them all
            scores[prefix], features[prefix] = partial(encoding.score_videos, model), part
            texts[prefix] = encoding.class_text(model, text)
    labels = label_tensor(records, text.num_classes)
    curve = accuracy_curve(params, device, clips, labels, text, set_name, zero_shot=True)
    if not features:
        return
    described = predictions.describe_set(records, dataset=dataset, lists=lists, protocol=protocol)
    tensors, values = compare_zero_shot(
        scores,
        features,
        labels,
        texts,
        protocols=views.protocols,
        splits=predictions.read_splits(dataset, records) if share == "all" else [],
        num_missing=int(described["num_expected"]) - int(described["num_videos"]),
    )
    path, plots = (f"{folder}/{params.recipe}/{set_name}" for folder in ("metrics", "plots"))
    provenance = record_provenance(params, device.type, plots)
    about = {**described, "recipe": params.recipe, "arch": params.model.arch}
    about |= {"model_sha256": provenance["model_sha256"], "clip_sha256": file_sha256(CLIP_FILE)}
    predictions.save(set_name, tensors, records, clips.view_names, text.class_names, about)
    predictions.write_videos(plots, records, tensors)
    values |= describe_choice(curve, plots)
    write_metrics(f"{path}.json", {**described, **provenance, **values})
    say(f"wrote predictions/{set_name}.*, {path}.json, {plots}/; next: report")


if __name__ == "__main__":
    run_stage(main, distributed=True)
