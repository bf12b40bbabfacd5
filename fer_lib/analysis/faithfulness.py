"""Test whether saliency maps are faithful to the network, on arrays and on networks.

`maps` are float (N, S, S) in 0..1, one per face. They are tested by hiding what they mark (deletion and
insertion, Petsiuk et al. 2018), by where their weight lies (energy, Wang et al. 2020; pointing game, Zhang et
al. 2018), by randomised weights (Adebayo et al. 2018), and by small shifts of the face.
"""

import copy
from functools import partial

import cv2
import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from fer_lib.analysis.explain import METHOD, compute_saliency

CURVES = ("deletion", "insertion")

N_STEPS = 10
"""Steps from none to all of a face's cells hidden or shown."""

CELLS = 16
"""Cells a side in which a face is hidden; single pixels would be noise, not parts of a face."""

BLUR_SHARE = 0.15
"""Sigma of the blur that hides, as a share of the side: nothing of an expression is left, the tone is."""

BATCH_SIZE = 128


def compute_curves(
    model: nn.Module, images: torch.Tensor, targets: np.ndarray, maps: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each of `CURVES` to float (N, N_STEPS + 1): the target's probability after each tenth of cells.

    Deletion blurs the cells that the map marks most, first; insertion starts from the blurred face and shows
    them first. images: float32 (N, 3, S, S), normalised; targets: int (N,), indices of logits.
    """
    plain, side = images.numpy(), images.shape[-1]
    planes = plain.reshape(-1, side, side)
    blur = partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=BLUR_SHARE * side, borderType=cv2.BORDER_REPLICATE)
    blurred = np.stack([blur(plane) for plane in planes]).reshape(plain.shape)
    ranks = rank_cells(maps)
    points: dict[str, list[np.ndarray]] = {curve: [] for curve in CURVES}
    for step in range(N_STEPS + 1):
        marked = (ranks < round(step / N_STEPS * CELLS**2)).astype(np.float32)
        enlarged = [cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST) for mask in marked]
        masks = np.stack(enlarged)[:, None]
        for curve, hidden in zip(CURVES, (masks, 1 - masks), strict=True):
            mixed = plain * (1 - hidden) + blurred * hidden
            points[curve].append(predict_target(model, torch.from_numpy(mixed.astype(np.float32)), targets))
    return {curve: np.stack(found, axis=1) for curve, found in points.items()}


def rank_cells(maps: np.ndarray) -> np.ndarray:
    """Return int (N, CELLS, CELLS): the place of each cell from the hottest, 0, to the coldest.

    Cells of equal heat follow one another in an order that is random, and the same for every face.
    """
    # A map is zero in many cells; read row by row, the top of the image would be hidden before the bottom.
    ties = np.random.default_rng(0).permutation(CELLS**2)
    order = ties[np.argsort(-_average_cells(maps)[:, ties], axis=1, kind="stable")]
    return np.argsort(order, axis=1).reshape(-1, CELLS, CELLS)


def compute_area(curves: np.ndarray) -> np.ndarray:
    """Return float (N,): the area under each curve, (N, N_STEPS + 1), over 0..1 by the trapezoidal rule."""
    return np.trapezoid(curves, dx=1 / N_STEPS, axis=1)


def compute_energy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return float (N,): the share of each map's weight that lies in its mask; 0 for a map of zeros.

    masks: bool or float (N, S, S).
    """
    total = maps.sum(axis=(1, 2))
    inside = (maps * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros_like(inside, dtype=float), where=total > 0)


def play_pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return float (N,): 1 where the hottest pixel lies in the mask, else 0."""
    peaks = maps.reshape(len(maps), -1).argmax(axis=1)
    return (masks.reshape(len(masks), -1)[np.arange(len(masks)), peaks] > 0.5).astype(float)


def build_random_maps(n: int, side: int, cells: int, seed: int) -> np.ndarray:
    """Return float32 (n, side, side): random values on a grid of `cells` a side, enlarged as maps are."""
    values = np.random.default_rng(seed).random((n, cells, cells)).astype(np.float32)
    return np.stack([cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR) for grid in values])


def build_centre_maps(centres: np.ndarray, radii: np.ndarray, side: int) -> np.ndarray:
    """Return float32 (N, side, side): a Gaussian about each face's centre.

    centres: (N, 2), x and y as fractions of the side; radii: (N,), standard deviations likewise.
    """
    grid = (np.arange(side) + 0.5) / side
    x, y = (grid - centres[:, axis, None] for axis in (0, 1))
    squares = y[:, :, None] ** 2 + x[:, None, :] ** 2
    return np.exp(-squares / (2 * radii[:, None, None] ** 2)).astype(np.float32)


def correlate_ranks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float (N,): Spearman's rank correlation of each pair of maps, by cells; 0 where one is flat."""
    ranks = [rankdata(_average_cells(maps), axis=1) for maps in (a, b)]
    centred = [part - part.mean(axis=1, keepdims=True) for part in ranks]
    norms = np.prod([np.sqrt((part**2).sum(axis=1)) for part in centred], axis=0)
    products = (centred[0] * centred[1]).sum(axis=1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def randomise_layers(
    model: nn.Module, images: torch.Tensor, targets: np.ndarray, stage: str, seed: int, method: str = METHOD
) -> dict[str, np.ndarray]:
    """Return block to float (N,): the rank correlation of maps before and after weights are randomised.

    Blocks are randomised from the classifier down, each in addition to those before (the cascade of Adebayo
    et al. 2018), by permuting each weight tensor, which keeps its distribution. NaN where a map became flat.
    The model is left as it was.
    """
    before = compute_saliency(model, images, targets, stage, method)
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    found = {}
    for name, block in list(changed.named_children())[::-1]:
        parts = list(block.named_children())[::-1] if isinstance(block, nn.Sequential) else []
        for part_name, part in [(f"{name}.{child}", module) for child, module in parts] or [(name, block)]:
            weights = [parameter for parameter in part.parameters() if parameter.numel() > 1]
            if not weights:
                continue
            with torch.no_grad():
                for weight in weights:
                    order = torch.randperm(weight.numel(), generator=generator)
                    weight.copy_(weight.flatten()[order].reshape(weight.shape))
            after = compute_saliency(changed, images, targets, stage, method)
            is_flat = np.ptp(after, axis=(1, 2)) == 0
            found[part_name] = np.where(is_flat, np.nan, correlate_ranks(before, after))
    return found


def measure_stability(
    model: nn.Module, images: torch.Tensor, targets: np.ndarray, stage: str, shift: int, method: str = METHOD
) -> np.ndarray:
    """Return float (N,): the rank correlation of each map with that of the face moved by `shift` pixels.

    The second map is moved back first; the border that comes in repeats the edge.
    """
    plain = compute_saliency(model, images, targets, stage, method)
    padded = torch.nn.functional.pad(images, (shift, 0, shift, 0), mode="replicate")
    side = images.shape[-1]
    moved = compute_saliency(model, padded[..., :side, :side].contiguous(), targets, stage, method)
    kept = side - shift
    return correlate_ranks(plain[:, :kept, :kept], moved[:, shift:, shift:])


def predict_target(model: nn.Module, images: torch.Tensor, targets: np.ndarray) -> np.ndarray:
    """Return float64 (N,): the probability of each image's target."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        chunks = [model(part.to(device)).double().softmax(dim=1).cpu() for part in images.split(BATCH_SIZE)]
    return torch.cat(chunks).numpy()[np.arange(len(targets)), targets]


def _average_cells(maps: np.ndarray) -> np.ndarray:
    """Return float32 (N, CELLS ** 2): the mean of each cell."""
    size = (CELLS, CELLS)
    cells = [cv2.resize(one.astype(np.float32), size, interpolation=cv2.INTER_AREA) for one in maps]
    return np.stack(cells).reshape(len(cells), -1)
