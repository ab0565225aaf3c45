"""`clipzoo export MODEL OUT.onnx|OUT.pt2`: a model as a graph for programs without this package."""

import argparse
from pathlib import Path

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.predict import class_names, open_model


def _run(arguments: argparse.Namespace) -> None:
    from clipzoo.serve.export import check_output, export_model  # slow: it imports torch

    names, out = class_names(arguments), Path(arguments.out)
    check_output(out)
    found = export_model(open_model(arguments.model, "cpu"), out, names, arguments.zero_shot)
    print(
        f"wrote {', '.join(map(str, found.files))}: {found.about['method']}, "
        f"{found.about['arch']}, {len(found.about['class_names'])} classes; the largest difference "
        f"to the model, for 1 and 3 videos of random pixels, is {found.difference:.1e}"
    )


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "export",
        "write a model as an ONNX file, or as a program of torch.export",
        (
            "export models/mine mine.onnx",
            "export models/mine mine.pt2",
            'export openclip:ViT-B-32/openai clip.onnx --class "juggling balls, knitting"',
        ),
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="as predict's --model (default: the last run's)"
    )
    parser.add_argument("out", metavar="OUT", help="the file to write, .onnx or .pt2")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--classes", metavar="FILE", help="a file with one class a line")
    group.add_argument("--class", dest="class_names", metavar="NAMES", help='"a, b": these classes')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--zero-shot", action="store_true", default=None, help="score as the stage zero_shot does"
    )
    kind.add_argument(
        "--trained", dest="zero_shot", action="store_false", help="score as the stage test does"
    )
    parser.set_defaults(run=_run)
