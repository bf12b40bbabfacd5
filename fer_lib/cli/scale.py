"""Commands for more images than one process can see."""

from collections.abc import Sequence
from typing import Any

import click

from fer_lib.cli.faces import model_options


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--output", required=True, metavar="DIR", help="A folder for parquet files, here or at an address."
)
@click.option("--column", default="image", help="Of parquet inputs: images in bytes, or their addresses.")
@click.option(
    "--crops",
    is_flag=True,
    help="All images are cut-out faces; else those of at most 64 pixels are.",
)
@click.option(
    "--address", help="Of a Ray cluster: `auto` or HOST:PORT. Without it, Ray runs on this machine."
)
@click.option("--workers", type=click.IntRange(1), help="Processes; without it, one for each core.")
@click.option(
    "--shard", type=click.IntRange(1), default=1_000_000, help="Images that are kept track of at once."
)
@model_options
def score(inputs: Sequence[str], output: str, model: str, variant: str | None, **options: Any) -> None:
    """Score any number of images into parquet files. If interrupted, the same command resumes.

    Takes files, folders, globs and parquet files, here or at addresses such as s3://bucket/folder.
    """
    from fer_lib.data.image_files import describe_counts
    from fer_lib.scale.score import score as run

    skipped, n_failed = run(inputs, output, model, variant, **options)
    print(f"written: {output}")
    if n_failed:
        print(f"not scored, see the column `error`: {n_failed:,}")
    if skipped:
        print(f"skipped {describe_counts(skipped)}")


@click.command()
@click.option(
    "--host",
    type=click.Choice(["127.0.0.1", "0.0.0.0", "::"]),
    default="127.0.0.1",
    help="All but the first need a token.",
)
@click.option("--port", type=click.IntRange(1024, 65535), default=8000)
@click.option("--workers", type=click.IntRange(1), help="Processes; without it, one for each core.")
@click.option("--batch-size", type=click.IntRange(1), default=1, help="Images classified at once.")
@model_options
def serve(
    host: str, port: int, workers: int | None, batch_size: int, model: str, variant: str | None
) -> None:
    """Serve a model: POST an image, get its faces as JSON.

    Requests carry the token in FER_SERVER_TOKEN, if that is set.
    """
    from fer_lib.scale.serve import serve as run

    run(model, variant, host, port, workers, batch_size)
