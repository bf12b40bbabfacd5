"""What each process of `test_distributed` runs: a training on noise, which it may kill once on the way."""

import json
import os
import signal
import sys
from pathlib import Path

from test_training import Faces, make_params

from fer_lib.training import fit as training
from fer_lib.training.distributed import get_rank


def run(folder, killed_at, **changes):
    """Train; return the loss of every step that this process took, and the history."""
    losses, train_on_batch = [], training.train_on_batch

    def note(*arguments):
        is_first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if is_first and get_rank() == 1 and len(losses) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        losses.append(train_on_batch(*arguments))
        return losses[-1]

    training.train_on_batch, training.SAVE_EVERY_SECONDS = note, 0.0
    try:
        result = training.fit(Faces(), make_params(**changes), folder / "state")
    finally:
        training.train_on_batch = train_on_batch
    return {"losses": losses, "history": result.history.drop(columns="seconds").to_dict("list")}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = run(folder, **json.loads(sys.argv[2]))
    if get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
