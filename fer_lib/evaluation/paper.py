"""What the paper says of its training run, for the reports to set beside ours."""

from typing import Any

import pandas as pd

from fer_lib.params import TrainingParams

EPOCHS = pd.DataFrame(
    {
        "epoch": [1, 3, 5],
        "train_loss": [0.48, 0.30, 0.18],
        "val_loss": [0.52, 0.35, 0.22],
        "val_accuracy": [0.68, 0.81, 0.89],
    }
)
"""The three epochs that the paper reports. It names neither data set, split nor kind of loss for them."""

SILENT = "not said"


def compare_recipe(config: dict[str, Any]) -> pd.DataFrame:
    """Return one row per setting, from a checkpoint's config: what the paper says, and what this run did."""
    training, source = TrainingParams(**config["params"]["training"]), config["initial_weights"]
    schedule = f"{training.lr:g}, {training.schedule} after {training.warmup_steps} steps of warm-up"
    loss = f"focal, gamma {training.focal_gamma:g}" if training.loss == "focal" else "cross-entropy"
    average = f"exponential, decay {training.ema_decay:g}" if training.ema_decay else "none"
    rows = [
        ("architecture", "EfficientNet-B0", training.architecture),
        ("initial weights", "ImageNet", f"{source['source']}: {source['name']}"),
        ("image size", "224 px", f"{training.image_size} px"),
        ("epochs", "5", f"at most {training.epochs}"),
        ("optimiser", "AdamW", f"AdamW, weight decay {training.weight_decay:g}"),
        ("learning rate", "0.001, constant", schedule),
        ("loss", "focal", loss),
        ("class imbalance", "weighted random sampler and focal loss", f"{training.sampler} sampler, {loss}"),
        ("dropout", "dropout layers", f"{training.dropout:g} before the classifier"),
        ("early stopping", "yes", f"after {training.patience} epochs without a better validation accuracy"),
        ("batch size", SILENT, str(training.batch_size)),
        ("label smoothing", SILENT, f"{training.label_smoothing:g}"),
        ("weight average", SILENT, average),
        ("device", SILENT, config["device"]),
    ]
    return pd.DataFrame(rows, columns=["setting", "paper", "this run"])
