"""Write the card of a released model: what it is, what it scores, what it is for and what it is not for."""

import textwrap
from collections.abc import Mapping
from typing import Any

from fer_lib.labels import GROUP_OF, GROUPS
from fer_lib.metrics_file import HEADLINES, Interval
from fer_lib.models.checkpoints import list_variants


def build_card(name: str, config: Mapping[str, Any]) -> str:
    """Return the card as Markdown; every number comes from the release's config."""
    metrics, training = config["metrics"], config["params"]["training"]
    emotions = config["emotions"]
    rows = [
        f"| {emotion} | {GROUP_OF[emotion]} | {_show(metrics, f'test.recall.{emotion}')} "
        f"| {_show(metrics, f'test.precision.{emotion}')} |"
        for emotion in emotions
    ]
    headlines = [f"| {title} | {_show(metrics, key, spec)} |" for key, (title, spec) in HEADLINES.items()]
    recall_of_groups = ", ".join(f"{g} {_show(metrics, f'test.group.recall.{g}')}" for g in GROUPS)
    seconds = config["training_seconds"]
    listed = ", ".join(f"`{recipe}` {value / 60:.0f}" for recipe, value in sorted(seconds.items()))
    framing = config["framing"]
    size, channels = framing["size"], "grey" if framing["channels"] == 1 else "RGB"
    image_size, onnx = config["preprocessing"]["image_size"], config["onnx"]
    answered, first_guess = metrics.get("val.accuracy_answered", 0), metrics.get("val.accuracy_abstained", 0)
    return _wrap(f"""# {name}

{config["architecture"]} trained on {config["dataset"]} by the recipe `{config["recipe"]}`,
{len(emotions)} emotions, towards {_describe_targets(training)}. `config.json`
holds the label order, the preprocessing, every parameter, the data
hash (`{config["data_hash"][:12]}`) and the commit that trained it (`{config["git_commit"][:12]}`).

```python
from fer_lib import Recognizer

recognizer = Recognizer.load("{name}")
for face in recognizer("photo.jpg"):
    print(face.box, face.label, face.confidence, face.abstained)
```

## What it scores

On the {metrics["test.n_images"]:,.0f} test images of {config["dataset"]}, scored as the app runs it
(ONNX Runtime, one view), with 95 % bootstrap intervals; no duplicates: without those that are copies of
training images. In three groups: accuracy {_show(metrics, "test.group.accuracy")};
recall of {recall_of_groups}.

| metric | test |
|---|--:|
{chr(10).join(headlines)}

| emotion | group | recall | precision |
|---|---|--:|--:|
{chr(10).join(rows)}

How error rates differ between people of other ages, sexes or skin tones was not measured for this card:
most sets of faces do not say.

## How sure it is

Probabilities are calibrated: a temperature of {config["temperature"]:.2f}, fitted on the validation split,
is divided into the last layer. Below a confidence of {config["abstain_below"]:.0%} the model abstains
(selective prediction). On the validation split its coverage is {metrics["val.coverage"]:.0%} of the faces,
{answered:.0%} of them correct; of those it abstains on, its first guess would be correct for
{first_guess:.0%}.

## What it expects

Faces framed as the training faces are: {size} x {size} pixels, {channels}, turned, scaled and shifted so that
eyes, nose and mouth lie where `framing` in `config.json` says. `Recognizer` does so with the landmarks of
YuNet. Faces are then enlarged to {image_size} pixels.

## What it is for, and what it is not for

**For** research, teaching, and trying the library on images that you may use. **Not for** judging people:
a face shows an expression, not what a person feels. In the European Union the AI Act (Regulation 2024/1689,
Article 5) prohibits inferring emotions at work and in education, outside medical and safety uses.
The labels of {config["dataset"]} are other people's guesses and are noisy; faces that are small, blurred,
covered or turned away are recognised less well.

{_describe_variants(config)}## Files

`model.safetensors` (PyTorch) and `model.onnx` hold the same weights, matrices rounded to half precision;
logits of the two differ by {onnx["max_logit_difference"]:.0e} at most. ONNX opset {onnx["opset"]}, written
with onnx {onnx["onnx"]}, tested with ONNX Runtime {onnx["onnxruntime"]}. Trained for {config["best_epoch"]}
epochs of {training["epochs"]} at {training["image_size"]} pixels on `{config["device"]}`.
With all that it was trained from, that took {sum(seconds.values()) / 60:.0f} minutes by the clock ({listed}).
""")


def _describe_variants(config: Mapping[str, Any]) -> str:
    """Return the section on the smaller variants beside the model; "" where there are none."""
    variants = list_variants(dict(config))
    if len(variants) == 1:
        return ""
    rows = [
        f"| `{name}` | `{variant['file']}` | {variant['architecture']} "
        f"| {variant['preprocessing']['image_size']} | {variant['bytes'] / 1e6:.1f} "
        f"| {variant['milliseconds']:.2f} | {_show(variant['metrics'], 'test.accuracy')} |"
        for name, variant in variants.items()
    ]
    return f"""## Smaller and faster

`Recognizer.load(..., variant="int8")` runs another network that learned from this one, in int8; `tiny` is the
smallest. Time is for one face on one thread ({config["cost"]["machine"]}). Only `float` can be explained.

| variant | file | architecture | pixels | MB | ms | test accuracy |
|---|---|---|--:|--:|--:|--:|
{chr(10).join(rows)}

"""


def _describe_targets(training: Mapping[str, Any]) -> str:
    """Return in words what the network was trained towards."""
    teacher = ", and as much towards the predictions of an ensemble" if training.get("teacher") else ""
    targets = {
        "label": "the labels",
        "majority": "the majority of FER+'s ten votes",
        "votes": "FER+'s ten votes",
        "blend": "the label and FER+'s ten votes",
    }[training.get("targets", "label")]
    return targets + teacher


def _wrap(text: str) -> str:
    """Fill the paragraphs of prose, whatever the length of the numbers; headings, tables and code stay."""
    blocks = text.strip().split("\n\n")
    kept = [block.startswith(("#", "|")) or "```" in block for block in blocks]
    filled = [
        block if keep else textwrap.fill(block, 110, break_long_words=False, break_on_hyphens=False)
        for block, keep in zip(blocks, kept, strict=True)
    ]
    # The spaces in an interval do not break; in the file they are found by who searches for the numbers.
    return "\n\n".join(filled).replace("\N{NO-BREAK SPACE}", " ") + "\n"


def _show(metrics: Mapping[str, float], key: str, spec: str = ".1%") -> str:
    """Return a value with its 95 % interval; a dash when it was not measured."""
    if key not in metrics:
        return "–"
    return f"{Interval(*(metrics[f'{key}{end}'] for end in ('', '_lo', '_hi'))):{spec}}"
