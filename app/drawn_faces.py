"""Say on every page that shows drawn faces how far to trust the answers, in one sentence."""

from app.results_data import get_interval, read_stage_metrics
from fer_lib.metrics_file import build_key


def describe_drawn_faces() -> str:
    """Return a sentence on drawn faces, with the measured accuracy where the pipeline has run."""
    metrics = read_stage_metrics("demo", "robustness").flatten()
    accuracy = get_interval(metrics, build_key("accuracy", split="external"))
    known = f" and is right about {accuracy:.1%} of drawn faces" if accuracy.is_defined else ""
    return f"These faces are drawn; the released model learned from photographs{known}."
