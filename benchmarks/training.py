"""Training throughput: the pipeline's loop, everything included, against bare forward and backward passes.

    python benchmarks/training.py [--dataset demo] [--image-size 64] [--rounds 9]
    python benchmarks/training.py --precision [--architecture resnet18]

Both sides run in one process and alternate, so that a noisy machine troubles both; medians are printed.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from fer_lib.data.packed import load_packed
from fer_lib.models.build import create_model
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.params import load_params
from fer_lib.training.loading import EpochBatches, FaceDataset, build_loader
from fer_lib.training.optim import build_ema, build_loss
from fer_lib.training.steps import choose_precision, train_on_batch
from fer_lib.training.transforms import TrainTransform

WARM_UP_STEPS = 3
STEPS_PER_ROUND = 12
"""More than the four batches that the loader can prepare while the other side runs."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--architecture", help="default: that of params.yaml")
    parser.add_argument("--image-size", type=int, help="default: that of params.yaml")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--precision", action="store_true", help="compare float32 with bfloat16 instead")
    arguments = parser.parse_args()
    params = load_params(arguments.dataset)
    changes = {"architecture": arguments.architecture, "image_size": arguments.image_size}
    changes = {key: value for key, value in changes.items() if value}
    training = params.training.model_copy(update=changes)
    params = params.model_copy(update={"training": training})
    steps = build_precision_steps(params) if arguments.precision else build_steps(arguments.dataset, params)
    print(f"{training.architecture}, {training.image_size} px, batch {training.batch_size}, {DEVICE}")
    compare(steps, training.batch_size, arguments.rounds)


def build_steps(dataset: str, params) -> dict[str, Callable[[], None]]:
    """Return one step each: on random tensors already in memory, and on what the pipeline's loader brings."""
    training, data = params.training, load_packed(dataset)
    preprocessing = Preprocessing(training.image_size, (0.5,) * 3, (0.5,) * 3)
    transform = TrainTransform(preprocessing, params.augmentation)
    faces = FaceDataset(data.faces, transform, np.eye(7, dtype=np.float32)[data.labels])
    batches = EpochBatches(data.get_rows("train"), None, training.batch_size, training.seed)
    loaded = itertools.chain.from_iterable(itertools.repeat(build_loader(faces, batches)))
    ready = itertools.repeat(make_random_batch(training))
    bare, whole = build_bare_pass(training), build_trainer(training, training.precision)
    return {"bare": lambda: bare(next(ready)), "pipeline": lambda: whole(next(loaded))}


def build_precision_steps(params) -> dict[str, Callable[[], None]]:
    batch = make_random_batch(params.training)
    trainers = {name: build_trainer(params.training, name) for name in ("float32", "bfloat16")}
    return {name: (lambda trainer=trainer: trainer(batch)) for name, trainer in trainers.items()}


def build_bare_pass(training) -> Callable[[tuple], None]:
    """Return a forward and backward pass without optimiser, average or transforms."""
    model = create_model(training.architecture, 7, training.dropout).train()
    model.to(DEVICE, memory_format=torch.channels_last)
    autocast = choose_precision(training.precision, training.architecture, DEVICE)

    def run(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        images, labels = (tensor.to(DEVICE) for tensor in batch)
        model.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, dtype=autocast, enabled=autocast is not None):
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()

    return run


def build_trainer(training, precision: str) -> Callable[[tuple], None]:
    torch.manual_seed(training.seed)
    model = create_model(training.architecture, 7, training.dropout).train()
    model.to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, fused=True)
    ema, loss = build_ema(model, training.ema_decay), build_loss(training, np.eye(7))
    autocast = choose_precision(precision, training.architecture, DEVICE)
    counter = itertools.count()

    def train(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        train_on_batch(model, *batch, loss, optimizer, DEVICE, autocast)
        if ema:
            ema.update(model, next(counter))

    return train


def make_random_batch(training) -> tuple[torch.Tensor, torch.Tensor]:
    size = training.image_size
    images = torch.randn(training.batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    return images, torch.eye(7)[torch.randint(7, (training.batch_size,))]


def compare(steps: dict[str, Callable[[], None]], batch_size: int, rounds: int) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP_STEPS):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(STEPS_PER_ROUND):
                step()
            speeds[name].append(STEPS_PER_ROUND * batch_size / (time.perf_counter() - start))
    for name, values in speeds.items():
        low, high = np.percentile(values, [5, 95])
        print(f"{name:<10} {statistics.median(values):7.1f} images/s  [{low:.1f}, {high:.1f}]")
    first, second = speeds.values()
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    print(f"ratio      {statistics.median(ratios):7.3f}  (median of {rounds} alternating rounds)")


if __name__ == "__main__":
    main()
