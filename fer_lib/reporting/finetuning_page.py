"""Write the page about a network that was fine-tuned on a user's own faces. It shows nobody's face."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from sklearn.metrics import confusion_matrix

from fer_lib.data.image_files import describe_counts
from fer_lib.data.packed import SPLITS
from fer_lib.files import write_atomically
from fer_lib.finetuning.finetune import Finetuned
from fer_lib.intervals import UNDEFINED
from fer_lib.reporting.figures.classes import plot_confusion
from fer_lib.reporting.figures.evaluation import plot_training_curves
from fer_lib.reporting.stage import TEMPLATE_DIR, build_table, embed_figure
from fer_lib.wording import join_words, spell_setting

PAGE_NAME = "report.html"

FEW_FACES = 10
"""Test faces of a class below which its scores say little."""

METRICS = ("recall", "precision")


def write_finetuning_page(result: Finetuned) -> Path:
    """Write the page beside the network; return its path."""
    data, scores = result.faces.data, result.scores
    counts = pd.DataFrame(data.meta["counts"])[list(SPLITS)].rename_axis("class")
    by_class = pd.DataFrame(
        {
            metric: [f"{scores.get(f'{metric}.{name}', UNDEFINED):.1%}" for name in data.emotions]
            for metric in METRICS
        },
        index=pd.Index(data.emotions, name="class"),
    )
    n_classes, predicted = len(data.emotions), result.probabilities.argmax(axis=1)
    confusion = confusion_matrix(result.labels, predicted, labels=range(n_classes))
    n_faces = np.bincount(result.labels, minlength=n_classes)
    figures = {
        "confusion": (plot_confusion(confusion, data.emotions), "Confusion matrix of the test faces."),
        "curves": (plot_training_curves(result.history), "The training: loss and accuracy after each epoch."),
    }
    training = result.config["params"]["training"]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_DIR), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("finetuning.html.j2").render(
        dataset=data.meta["dataset"],
        result=result,
        n_test=len(result.labels),
        has_persons="identity" in data.index,
        few=[name for name, n in zip(data.emotions, n_faces, strict=True) if n < FEW_FACES],
        few_faces=FEW_FACES,
        counts=Markup(build_table(counts, "Faces of each class in each part")),
        left_out={
            "without a face": describe_counts(result.faces.no_face),
            "unreadable": f"{len(result.faces.problems):,}",
            "passed over": describe_counts(Counter(result.faces.passed_over.values())),
        },
        by_class=Markup(build_table(by_class, "Test scores of each class, with 95% intervals")),
        figures={
            name: Markup(embed_figure(figure, name, caption)[1])
            for name, (figure, caption) in figures.items()
        },
        training=training,
        network=spell_setting(training["architecture"]),
        known=join_words([name for name in data.emotions if name in result.known]),
        n_epochs=len(result.history),
        minutes=float(result.history["seconds"].iloc[-1]) / 60,
        provenance={
            "data": data.data_hash,
            "commit": result.config["git_commit"],
            "seed": training["seed"],
            "device": result.config["device"],
        },
    )
    path = result.folder / PAGE_NAME
    write_atomically(path, page.encode())
    return path
