"""`clipzoo publish OUT`: the model of the last run as a folder that predict and others read."""

import argparse

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.use import PARAMS_FILE
from clipzoo.config import load_params


def _run(arguments: argparse.Namespace) -> None:
    from clipzoo.serve.folder import model_of_run, write_folder  # slow: they import torch

    kind = "closed" if arguments.closed else "open"
    model = model_of_run(load_params(PARAMS_FILE))
    write_folder(model, arguments.folder, kind)
    classes = f"its {len(model.config.class_names)} classes" if arguments.closed else "any classes"
    print(
        f"wrote {arguments.folder}: {model.config.recipe}, {model.config.clip.arch}, for {classes};"
        f" next: clipzoo predict VIDEO --model {arguments.folder}"
    )


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "publish",
        "write the model of the last run as a folder for others",
        ("publish models/mine", "publish models/mine --closed"),
    )
    parser.add_argument("folder", metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--closed", action="store_true", help="without the text tower: its own classes alone"
    )
    parser.set_defaults(run=_run)
