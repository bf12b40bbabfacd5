"""Run a command: `fer <command>`, or `python -m fer_lib <command>`."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click

from fer_lib.cli import drawn, faces, own_faces, scale, videos
from fer_lib.errors import FerError


class Call(NamedTuple):
    """A command that calls one function of the library and prints what that returns.

    function: `module:name` in `fer_lib`, imported when the command runs, so that `--help` answers at once.
    takes: the function's arguments in order, of `OPTIONS` or, in capitals, of the command line.
    """

    function: str
    takes: str
    result: str
    help: str


OPTIONS = {
    "--dataset": click.Option(["--dataset"], required=True, help="A data set of params.yaml, such as demo."),
    "--out-dir": click.Option(["--out-dir"], help="Where reports/ and models/ go; without it, scratch/."),
    "--smoke": click.Option(["--smoke"], is_flag=True, help="Tiny settings, to see that it works."),
    "--study": click.Option(["--study"], help="One study of the ablations alone, such as paper."),
    "--processes": click.Option(
        ["--processes"], type=click.IntRange(1), default=1, help="That train one network together, on GPUs."
    ),
    "--model": click.Option(["--model"], default=faces.DEFAULT_MODEL, help="A name that `models` lists."),
}
STUDY = "--dataset --out-dir"

CALLS = {
    "pipeline": Call(
        "cli.pipeline:run_pipeline", "DATASET", "report", "Run the stages that are out of date."
    ),
    "notebook": Call(
        "reporting.execution:run_notebook",
        "NAME --dataset --out-dir --smoke",
        "report",
        "Run a notebook, such as 03_training, and write its page.",
    ),
    "train-recipe": Call(
        "training.recipes:train_recipe",
        "RECIPE --dataset --out-dir",
        "checkpoint",
        "Train a recipe of params.yaml, or `baseline`.",
    ),
    "train-networks": Call(
        "training.networks:train_networks",
        f"{STUDY} --processes",
        "trained",
        "Train `baseline` and every recipe.",
    ),
    "predict-networks": Call(
        "evaluation.predictions:predict_networks", STUDY, "predicted", "Predict validation and test faces."
    ),
    "ablate": Call(
        "evaluation.ablations:run_ablations",
        "--dataset --out-dir --study",
        "studies",
        "Train and score every arm of the ablations.",
    ),
    "compress": Call(
        "deployment.compression:compress_networks", STUDY, "compressed", "Write int8 and sparse variants."
    ),
    "time-variants": Call(
        "deployment.latency:time_variants", STUDY, "times", "Time every variant of every compressed network."
    ),
    "test-saliency": Call(
        "analysis.explain_study:evaluate_saliency", STUDY, "results", "Test a network's saliency maps."
    ),
    "perturb": Call(
        "analysis.robustness:predict_perturbed", STUDY, "predictions", "Predict faces under every corruption."
    ),
    "counterfactuals": Call(
        "analysis.counterfactuals:predict_counterfactuals",
        STUDY,
        "predictions",
        "Predict drawn faces with one factor changed.",
    ),
    "privacy": Call(
        "analysis.privacy:measure_privacy", STUDY, "metrics", "Measure membership inference and inversion."
    ),
    "triton": Call(
        "deployment.triton:export_triton",
        "--model FOLDER",
        "written",
        "Write a release for the Triton Inference Server.",
    ),
    "phone": Call(
        "deployment.phone:export_phone",
        "--model FOLDER",
        "",
        "Write a release as LiteRT, ExecuTorch and Core ML.",
    ),
    "bench": Call("deployment.latency:run_bench", "--model", "", "Time every variant of a model here."),
}
"""Commands behind the stages of `dvc.yaml` that are no notebooks, and others of the same kind."""


EXTRAS = {"video": "media", "webcam": "media", "score": "scale", "serve": "serve", "phone": "phone"}
"""What a command needs besides the base of the package; `study` where none is named."""


class Commands(click.Group):
    """A group that lists its commands in their order here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"max_content_width": 110, "show_default": True})
def fer() -> None:
    """Facial emotion recognition that can be rerun, audited and used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status. What a user did wrong is told in one line, without a trace."""
    # A file's name may hold what a terminal cannot show.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with fer.make_context("fer", list(sys.argv[1:] if arguments is None else arguments)) as context:
            return fer.invoke(context) or 0
    except click.exceptions.Exit as done:  # of --help
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        if str(error.name).startswith("fer_lib"):
            raise
        extra = EXTRAS.get(str(context.invoked_subcommand), "study")
        place = "; in a clone of the repository," if extra == "study" else ";"
        needed = f"{error.name}: expected what the extra `{extra}` installs, found none"
        print(f"error: {needed}{place} install fer-lib with it", file=sys.stderr)
        return 1
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who reads the output, such as `head`, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed at the end
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        place = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{place}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def build_command(name: str, call: Call) -> click.Command:
    """Return the command that makes a call."""
    parameters = [OPTIONS.get(part) or click.Argument([part.lower()]) for part in call.takes.split()]

    def run(**given: Any) -> None:
        module, function = call.function.split(":")
        made = getattr(import_module(f"fer_lib.{module}"), function)(*(given[p.name] for p in parameters))
        shown = ", ".join(made) if isinstance(made, list) else made
        print(f"{call.result}: {shown}" if call.result else shown)

    return click.Command(name, callback=run, params=list(parameters), help=call.help)


@click.command(params=[OPTIONS["--dataset"]])
@click.option("--skip-bad", is_flag=True, help="Drop unreadable rows and list them.")
def prepare(dataset: str, skip_bad: bool) -> None:
    """Pack the raw faces of a data set."""
    from fer_lib.data.audit import describe_packing
    from fer_lib.data.croissant import write_croissant
    from fer_lib.data.prepare import prepare as pack
    from fer_lib.params import load_params

    params = load_params(dataset).prepare
    meta = pack(dataset, params.model_copy(update={"skip_bad": True}) if skip_bad else params)
    if meta["layout"] == "demo":
        write_croissant()
    print(f"{dataset}: {describe_packing(meta)}")
    print(f"data hash: {meta['data_hash']}")


@click.command(params=[OPTIONS["--smoke"]])
@click.argument("dataset")
@click.option("--recipe", default="baseline", help="A recipe of params.yaml, or the paper's: baseline.")
@click.option("--arm", metavar="STUDY.ARM", help="An arm of an ablation study instead, such as loss.focal_2.")
def params(dataset: str, recipe: str, arm: str | None, smoke: bool) -> None:
    """Print the settings of a training. Beside each stands its place in params.yaml."""
    from fer_lib.cli.pipeline import describe_settings

    if arm and recipe != "baseline":
        raise click.UsageError("expected --recipe or --arm, found both")
    print(describe_settings(dataset, recipe, arm, smoke))


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--against", metavar="COMMIT", help="Compare the headline numbers with a commit's.")
def verify(datasets: Sequence[str], against: str | None) -> int:
    """Check the numbers in reports/ against their sources."""
    from fer_lib.cli.rerun import report
    from fer_lib.cli.verify import check_names, verify_reports

    if against is None:
        return verify_reports(datasets)
    return max([report(against, dataset) for dataset in check_names(datasets)])


@click.command()
@click.argument("dataset")
@click.argument("seed", type=click.IntRange(min=1))
def scatter(dataset: str, seed: int) -> None:
    """Run the committed study with another seed. Tells how its numbers scatter."""
    from fer_lib.cli.rerun import measure_scatter

    print(f"numbers: {measure_scatter(dataset, seed)}")


@click.command()
@click.argument("dataset")
def rerun(dataset: str) -> int:
    """Run the committed study again, in rerun/, and compare."""
    from fer_lib.cli.rerun import rerun as run_again

    return run_again(dataset)


@click.command()
@click.argument("dataset")
@click.argument("name")
@click.option(
    "--hub-folder",
    metavar="DIR",
    help="Copy the release that there is to a folder for the Hugging Face Hub; make none.",
)
def release(dataset: str, name: str, hub_folder: str | None) -> None:
    """Export a trained model for use."""
    if hub_folder:
        from fer_lib.deployment.hub_folder import write_hub_folder

        written = write_hub_folder(dataset, name, hub_folder)
        print(f"written: {written}; `hf upload OWNER/{name} {written}` publishes it")
    else:
        from fer_lib.deployment.release import release_model

        print(f"released: {release_model(dataset, name)}")


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when it is stale.")
def readme(check: bool) -> int:
    """Rewrite the result table of README.md."""
    from fer_lib.reporting.readme import check_readme, update_readme

    if not check:
        update_readme()
    elif not check_readme():
        print("README.md: its result table is not what reports/ says; run `make readme`", file=sys.stderr)
        return 1
    return 0


for _command in (
    *(faces.predict, videos.video, videos.webcam, faces.explain, faces.models, faces.evaluate, faces.audit),
    *(drawn.draw, own_faces.train),
    *(scale.score, scale.serve),
    *(
        rerun,
        verify,
        scatter,
        params,
        prepare,
        release,
        *(build_command(name, call) for name, call in CALLS.items()),
        readme,
    ),
):
    fer.add_command(_command)
