"""The command line: `python -m fer_lib <command>`."""

import argparse
import os
import sys
from collections.abc import Sequence

from fer_lib.cli import cli_audit
from fer_lib.cli import faces as cli_faces
from fer_lib.cli import stages as cli_study
from fer_lib.errors import FerError
from fer_lib.paths import ROOT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. What a user did wrong is told in one line, without a trace."""
    options = build_parser().parse_args(arguments)
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what a terminal cannot show
    try:
        return options.run(options) or 0
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who reads the output, such as `head`, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed at the end
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {error.strerror or error}: {error.filename or 'no file named'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m fer_lib", description="Facial emotion recognition.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    cli_faces.add_commands(commands)
    cli_study.add_commands(commands)
    cli_audit.add_commands(commands)

    pipeline = commands.add_parser("pipeline", help="run every stage of a data set that is out of date")
    pipeline.add_argument("dataset", metavar="DATASET", help="a data set of params.yaml, such as demo")
    pipeline.set_defaults(run=_run_pipeline)

    prepare = commands.add_parser("prepare", help="pack the raw faces of a data set")
    prepare.add_argument("--dataset", required=True, help="a data set of params.yaml, such as demo")
    prepare.add_argument("--skip-bad", action="store_true", help="drop unreadable rows and list them")
    prepare.set_defaults(run=_run_prepare)

    notebook = commands.add_parser("notebook", help="run one notebook and write its page")
    notebook.add_argument("name", metavar="NAME", help="such as 03_training")
    notebook.add_argument("--dataset", required=True, help="a data set of params.yaml, such as demo")
    notebook.add_argument("--smoke", action="store_true", help="tiny settings, to see that it works")
    notebook.add_argument("--out-dir", metavar="DIR", help="where reports/ and models/ go (default: scratch)")
    notebook.set_defaults(run=_run_notebook)

    readme = commands.add_parser("readme", help="rewrite the result table of README.md")
    readme.add_argument("--check", action="store_true", help="change nothing; exit 1 when it is stale")
    readme.set_defaults(run=_run_readme)
    return parser


# The commands import what they need when they run, so that `--help` answers at once.


def _run_pipeline(options: argparse.Namespace) -> None:
    from fer_lib.cli.pipeline import run_pipeline

    print(f"report: {run_pipeline(options.dataset).relative_to(ROOT)}")


def _run_prepare(options: argparse.Namespace) -> None:
    from fer_lib.data.prepare import prepare
    from fer_lib.params import load_params

    params = load_params(options.dataset).prepare
    if options.skip_bad:
        params = params.model_copy(update={"skip_bad": True})
    meta = prepare(options.dataset, params)
    splits = ", ".join(f"{split} {sum(counts.values()):,}" for split, counts in meta["counts"].items())
    print(f"{options.dataset}: {meta['n_faces']:,} faces ({splits}), {meta['n_dropped']:,} dropped")
    print(f"data hash: {meta['data_hash']}")


def _run_notebook(options: argparse.Namespace) -> None:
    from fer_lib.reporting.execution import run_notebook

    print(f"report: {run_notebook(options.name, options.dataset, options.out_dir, options.smoke)}")


def _run_readme(options: argparse.Namespace) -> int:
    from fer_lib.reporting.index_page import check_readme, update_readme

    if not options.check:
        update_readme()
        return 0
    if check_readme():
        return 0
    print("README.md: its result table is not what reports/ says; run `make readme`", file=sys.stderr)
    return 1
