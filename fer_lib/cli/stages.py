"""The commands of the pipeline's stages that are no notebooks: `train`, `compress`, `perturb` and others."""

import argparse


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the parser of `fer_lib.cli.main`."""
    train = commands.add_parser("train", help="train one recipe of params.yaml")
    train.add_argument("name", metavar="RECIPE", help="such as b0")
    train.set_defaults(run=_run_train)

    predict = commands.add_parser(
        "predict-splits", help="predict the validation and test faces with a trained network"
    )
    predict.add_argument("name", metavar="NETWORK", help="baseline or a recipe, such as b0")
    predict.set_defaults(run=_run_predict_splits)

    ablate = commands.add_parser("ablate", help="train and score every arm of one ablation study")
    ablate.add_argument("name", metavar="STUDY", help="such as loss")
    ablate.set_defaults(run=_run_ablate)

    teach = commands.add_parser("teach", help="write what the ensemble says of the training faces")
    teach.set_defaults(run=_run_teach)

    compress = commands.add_parser("compress", help="write the int8 and sparse variants of a trained network")
    compress.add_argument("name", metavar="NETWORK", help="such as compact")
    compress.set_defaults(run=_run_compress)

    timing = commands.add_parser("time-variants", help="time every variant of every compressed network")
    timing.set_defaults(run=_run_time_variants)

    explaining = commands.add_parser("test-heatmaps", help="put a network's heat maps to the test")
    explaining.set_defaults(run=_run_test_heatmaps)

    perturb = commands.add_parser("perturb", help="predict test faces under every perturbation")
    perturb.set_defaults(run=_run_perturb)

    vary = commands.add_parser("vary", help="predict drawn faces with one factor changed")
    vary.set_defaults(run=_run_vary)

    attack = commands.add_parser("attack", help="measure what a network gives away about its training faces")
    attack.set_defaults(run=_run_attack)

    for command in (train, predict, ablate, teach, compress, timing, explaining, perturb, vary, attack):
        command.add_argument("--dataset", required=True, help="a data set of params.yaml, such as demo")
        command.add_argument(
            "--out-dir", metavar="DIR", help="where reports/ and models/ go (default: scratch)"
        )


def _run_train(options: argparse.Namespace) -> None:
    from fer_lib.training.recipes import train_recipe

    print(f"checkpoint: {train_recipe(options.name, options.dataset, options.out_dir)}")


def _run_predict_splits(options: argparse.Namespace) -> None:
    from fer_lib.evaluation.predictions import predict_splits

    print(f"predictions: {predict_splits(options.name, options.dataset, options.out_dir)}")


def _run_teach(options: argparse.Namespace) -> None:
    from fer_lib.training.ensemble import write_teacher

    print(f"teacher: {write_teacher(options.dataset, options.out_dir)}")


def _run_ablate(options: argparse.Namespace) -> None:
    from fer_lib.evaluation.ablations import run_study

    print(f"predictions: {run_study(options.name, options.dataset, options.out_dir)}")


def _run_compress(options: argparse.Namespace) -> None:
    from fer_lib.deployment.compression import compress

    print(f"variants: {compress(options.name, options.dataset, options.out_dir)}")


def _run_time_variants(options: argparse.Namespace) -> None:
    from fer_lib.deployment.latency import time_variants

    print(f"times: {time_variants(options.dataset, options.out_dir)}")


def _run_test_heatmaps(options: argparse.Namespace) -> None:
    from fer_lib.analysis.explain_study import study_explanations

    print(f"results: {study_explanations(options.dataset, options.out_dir)}")


def _run_perturb(options: argparse.Namespace) -> None:
    from fer_lib.analysis.robustness import predict_perturbed

    print(f"predictions: {predict_perturbed(options.dataset, options.out_dir)}")


def _run_vary(options: argparse.Namespace) -> None:
    from fer_lib.analysis.variants import predict_variants

    print(f"predictions: {predict_variants(options.dataset, options.out_dir)}")


def _run_attack(options: argparse.Namespace) -> None:
    from fer_lib.analysis.privacy import measure_privacy

    print(f"metrics: {measure_privacy(options.dataset, options.out_dir)}")
