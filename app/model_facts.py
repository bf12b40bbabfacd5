"""Put into words what the page About this model says; every number comes from the model's config."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.number_titles import BY_ANNOTATORS, SCORES
from app.results_data import describe_dataset, get_interval
from fer_lib.inference.registry import CARD_NAME, TARGETS, name_network
from fer_lib.metrics_file import HEADLINES, Metrics
from fer_lib.wording import join_words


def describe_model(config: Mapping[str, Any]) -> str:
    """Return a sentence on what the model is."""
    emotions = config["emotions"]
    network = f"A {name_network(config)}" if "members" in config else f"A network ({name_network(config)})"
    return f"{network} that tells {len(emotions)} expressions apart: {join_words(emotions)}."


def list_costs(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and a remark of size and speed where they were measured, as text."""
    costs = []
    if "bytes" in config:
        costs.append(
            (
                "Size",
                f"{config['bytes'] / 1e6:.1f} MB",
                "all its networks" if "members" in config else "on disk",
            )
        )
    if "milliseconds" in config:
        machine = f" of {config['machine']}" if "machine" in config else ""
        costs.append(("Time for a face", f"{config['milliseconds']:.1f} ms", f"one thread{machine}"))
    return costs


def describe_training(config: Mapping[str, Any]) -> list[str]:
    """Return sentences on what the model was trained on, and what it was trained towards."""
    if "dataset" not in config:
        return ["Its config does not say what it was trained on."]
    sentences = [f"Its training images: {describe_dataset(config['dataset'])}."]
    if "targets" in config:
        shares = [f"{TARGETS[target]} ({share:.0%})" for target, share in config["targets"].items()]
        sentences.append(f"It was taught by {' and '.join(shares)}.")
    if "members" in config:
        sentences.append("Its networks were trained one by one, and their probabilities are averaged.")
    return sentences


def describe_saliency(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence on saliency maps where there are any: of one network, with PyTorch."""
    if "members" in config or not find_spec("torch"):
        return []
    return ["The pages Photo and Compare can show which parts of a face speak for an emotion (saliency map)."]


def list_scores(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and 95% interval of each headline metric that was measured, as text."""
    metrics = _get_metrics(config)
    titles = SCORES
    if config.get("judged_by") == "majority":  # by the labels it is not calibrated
        titles = BY_ANNOTATORS | {"test.accuracy": ("Accuracy by labels", ".1%")}
        for metric in ("macro.recall", "ece"):
            name, spec = HEADLINES[f"test.{metric}"]
            titles[f"test.majority.{metric}"] = (f"{name} by annotators", spec)
    return [
        (name, format(metrics[key], spec), _show(metrics, key, spec).partition("\N{NO-BREAK SPACE}")[2])
        for key, (name, spec) in titles.items()
        if key in metrics
    ]


def describe_trust(config: Mapping[str, Any]) -> list[str]:
    """Return sentences on how often the model is right, and how well it knows when it is not."""
    metrics = _get_metrics(config)
    judge = "test.majority" if config.get("judged_by") == "majority" else "test"
    return [
        *_describe_accuracy(metrics),
        *_describe_emotions(metrics, config["emotions"], judge),
        *_describe_confidence(metrics, judge),
        _describe_abstention(metrics, config.get("abstain_below", 0.0)),
    ]


def _describe_accuracy(metrics: Mapping[str, float]) -> list[str]:
    if "test.accuracy" not in metrics:
        if "val.accuracy" not in metrics:
            return ["Its config says nothing about how often it is right: take no answer for granted."]
        return [
            f"Its accuracy on the validation images is {metrics['val.accuracy']:.1%}. They also helped to "
            "select it, so expect less; scores on unseen test images are on the page Results."
        ]
    images = f"the {metrics['test.n_images']:,.0f}" if "test.n_images" in metrics else "its"
    sentences = [
        f"Its accuracy on {images} test images is {_show(metrics, 'test.accuracy')}; brackets hold 95% "
        "intervals. The labels are other people's guesses, and not always correct themselves."
    ]
    if "test.majority.accuracy" in metrics:
        share = _show(metrics, "test.majority.accuracy")
        sentences.append(f"Judged by the majority of FER+'s annotators, where they have one, it is {share}.")
    if "test_dedup.accuracy" in metrics:
        share = _show(metrics, "test_dedup.accuracy")
        sentences.append(
            f"Without duplicates, test images that are identical to a training image, it is {share}."
        )
    return sentences


def _describe_emotions(metrics: Mapping[str, float], emotions: list[str], judge: str) -> list[str]:
    recalls = {name: key for name in emotions if (key := f"{judge}.recall.{name}") in metrics}
    if len(recalls) < 2:
        return []
    best = max(recalls, key=lambda name: metrics[recalls[name]])
    worst = min(recalls, key=lambda name: metrics[recalls[name]])
    return [
        f"Recall, the share of an emotion's faces that it finds, is highest for {best}, "
        f"{_show(metrics, recalls[best])}, and lowest for {worst}, {_show(metrics, recalls[worst])}."
    ]


def _describe_confidence(metrics: Mapping[str, float], judge: str) -> list[str]:
    if f"{judge}.ece" not in metrics:
        return []
    points = _show({key: 100 * value for key, value in metrics.items()}, f"{judge}.ece", ".1f")
    sentence = f"The confidence it states is off by {points} percentage points on average (calibration error)"
    if f"{judge}.mean_confidence" not in metrics or f"{judge}.accuracy" not in metrics:
        return [f"{sentence}."]
    modest = metrics[f"{judge}.mean_confidence"] < metrics[f"{judge}.accuracy"]
    return [f"{sentence}; on the whole it is {'less' if modest else 'more'} sure than it should be."]


def _describe_abstention(metrics: Mapping[str, float], abstain_below: float) -> str:
    if not abstain_below:
        return (
            "It always names an emotion, however unlikely: no threshold was set under which it is “unsure”."
        )
    sentence = f"Below a confidence of {abstain_below:.0%} it names no emotion and is “unsure”."
    if "val.coverage" in metrics and "val.accuracy_answered" in metrics:
        sentence += (
            f" Of the validation images it answers {metrics['val.coverage']:.0%} (coverage), with an "
            f"accuracy of {metrics['val.accuracy_answered']:.0%}."
        )
    if "val.accuracy_abstained" in metrics:
        sentence += (
            f" Where it is unsure, its best guess is correct for {metrics['val.accuracy_abstained']:.0%}."
        )
    return sentence


def describe_privacy(config: Mapping[str, Any], attacks: Metrics) -> list[str]:
    """Return sentences on the network's privacy leakage: membership inference and model inversion.

    `attacks` are the metrics of stage `privacy`; the text is empty when they are of other faces, and says so
    when they are of another network that was trained on the same.
    """
    if not attacks or attacks.provenance.get("data") != config.get("data_hash"):
        return []
    sentences = []
    if attacks["network"] != config.get("network", "").partition(".")[0]:
        sentences = [f"Measured on `{attacks['network']}`, another network that was trained on these faces."]
    auroc = attacks.interval("membership.auroc")
    train, unseen = (attacks.interval(f"inversion.{split}") for split in ("train", "unseen"))
    return [
        *sentences,
        "Membership inference: someone who has the network and a face can ask whether it was trained on that "
        f"face. Guessed from the network's loss alone, the AUROC is {auroc:.2f}, where 0.5 is chance and 1 "
        "certainty.",
        "Model inversion: someone who has the network can search for the image of which it is surest. "
        f"Averaged over the emotions, the most similar training face correlates with it by {train:.2f}, and "
        f"the most similar of as many unseen faces by {unseen:.2f}. Other attacks may do better.",
    ]


def list_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return where the model comes from, name to text; what the config does not say is left out."""
    training = (config.get("params") or {}).get("training") or {}
    epochs = config.get("epochs") or [config.get("best_epoch"), training.get("epochs", "?")]
    facts = {
        "Architecture": name_network(config),
        "Trained on": config.get("dataset"),
        "Emotions": ", ".join(config["emotions"]),
        "Input": _describe_input(config),
        "Best epoch": " of ".join(map(str, epochs)) if epochs[0] else None,
        "Seed": training.get("seed"),
        "Device": config.get("device"),
        "Data hash": str(config.get("data_hash") or "")[:12],
        "Commit of the code": str(config.get("git_commit") or "")[:12],
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _describe_input(config: Mapping[str, Any]) -> str | None:
    if "preprocessing" not in config:  # a vote has members that differ
        return None
    return f"{config['preprocessing']['image_size']} pixels a side"


def read_card(folder: Path) -> str:
    """Return the model's card as Markdown for the page; "" when there is none.

    Without its metadata and its first heading, which repeats the name, and with smaller ones: it stands below
    a heading.
    Links to files lead nowhere in a browser, and images from elsewhere would tell a server who is looking:
    of both the text is kept. Code stays as it is.
    """
    try:
        text = (folder / CARD_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    body = re.sub(r"\A(---\n.*?\n---\n)?\s*(# [^\n]*\n)?", "", text, flags=re.DOTALL)
    parts = re.split(r"(```.*?```|`[^`\n]*`)", body, flags=re.DOTALL)
    return "".join(part if part.startswith("`") else _fit_markdown(part) for part in parts).strip()


def _fit_markdown(text: str) -> str:
    text = re.sub(r"^(#{1,5}) ", r"\1# ", text, flags=re.MULTILINE)
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\[([^\]]*)\]\((?!https?://)[^)]*\)", r"\1", text)


def _get_metrics(config: Mapping[str, Any]) -> dict[str, float]:
    metrics = config.get("metrics") or {}
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def _show(metrics: Mapping[str, float], key: str, spec: str = ".1%") -> str:
    """Return a value with its interval, or alone where none was measured."""
    interval = get_interval(metrics, key)
    return format(interval if interval.is_defined else metrics[key], spec)
