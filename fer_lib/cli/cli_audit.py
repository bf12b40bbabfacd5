"""The commands that judge a model on faces it was not made from: `evaluate`, `audit`."""

import argparse
from pathlib import Path

from fer_lib.models.checkpoints import DEFAULT_MODEL, FLOAT_FORM

N_RESAMPLES = 1000


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the parser of `fer_lib.cli.main`."""
    evaluate = commands.add_parser("evaluate", help="score a model on a folder of faces, sorted by emotion")
    evaluate.set_defaults(run=_run_evaluate)

    audit = commands.add_parser("audit", help="write the robustness and subgroup report of a model")
    audit.add_argument("--out", default="audit", metavar="DIR", help="where to write (default: audit/)")
    audit.add_argument(
        "--faces", type=_parse_count, default=300, metavar="N", help="how many are perturbed (default: 300)"
    )
    audit.set_defaults(run=_run_audit)

    for command in (evaluate, audit):
        command.add_argument(
            "--model", default=DEFAULT_MODEL, metavar="M", help="a name or a checkpoint's folder"
        )
        command.add_argument("--form", default=FLOAT_FORM, metavar="F", help="float, int8 or tiny")
        command.add_argument(
            "--data",
            default="demo",
            metavar="D",
            help="a packed data set, or a folder with one folder per class",
        )


def _load(options: argparse.Namespace):
    from fer_lib.analysis.external import load_outside
    from fer_lib.inference.recognizer import Recognizer

    recognizer = Recognizer.load(options.model, form=options.form)
    return recognizer, load_outside(recognizer, options.data)


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found {text!r}")
    return int(text)


def _run_evaluate(options: argparse.Namespace) -> None:
    from fer_lib.analysis.external import evaluate_outside
    from fer_lib.metrics_file import format_interval

    recognizer, faces = _load(options)
    print(faces.mapping.to_string(index=False))
    metrics = evaluate_outside(recognizer, faces, N_RESAMPLES, seed=0)
    print(f"\n{len(faces.labels)} faces")
    keys = {"accuracy": "accuracy", "macro recall": "macro.recall", "ECE": "ece"}
    keys |= {f"recall of {name}": f"recall.{name}" for name in recognizer.emotions}
    for title, key in keys.items():
        if f"outside.{key}_lo" in metrics:
            print(f"{title:20} {format_interval(metrics, f'outside.{key}')}")


def _run_audit(options: argparse.Namespace) -> None:
    from fer_lib.reporting.model_audit import audit_model

    recognizer, faces = _load(options)
    print(f"report: {audit_model(recognizer, faces, Path(options.out), options.faces)}")
