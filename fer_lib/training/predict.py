"""Logits of a network for rows of the packed store: validation, evaluation and the notebooks use this."""

import numpy as np
import torch
from torch import nn

from fer_lib.data.packed import PackedDataset
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.training.loading import FaceDataset, build_eval_batches, build_loader
from fer_lib.training.transforms import build_eval_transform


def predict_logits(
    model: nn.Module, data: PackedDataset, rows: np.ndarray, preprocessing: Preprocessing, batch_size: int
) -> np.ndarray:
    """Return float32 (len(rows), C) logits, in the order of `rows`, computed where `model` lies."""
    dataset = FaceDataset(data, build_eval_transform(preprocessing))
    return run_batches(model, build_loader(dataset, build_eval_batches(rows, batch_size)))


def run_batches(model: nn.Module, loader: torch.utils.data.DataLoader) -> np.ndarray:
    """Return float32 (N, C) logits for everything `loader` yields, in its order."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        chunks = [
            model(images.to(device, memory_format=torch.channels_last)).float().cpu() for images, _ in loader
        ]
    return torch.cat(chunks).numpy()


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 (N, C) probabilities."""
    return torch.from_numpy(logits).double().softmax(dim=1).numpy()
