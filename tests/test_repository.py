"""What a clone weighs: every version of a file stays in Git for good."""

from conftest import REPO, run_git

MEGABYTE = 10**6
MAX_TREE = 60 * MEGABYTE
MAX_FILE = 2 * MEGABYTE
"""Of any file but a released network, which is one ONNX file."""


def test_work_tree_and_its_files_are_small():
    sizes = {path: (REPO / path).stat().st_size for path in run_git(REPO, "ls-files", "-z").split("\0")[:-1]}
    large = {path for path, size in sizes.items() if size > MAX_FILE}
    assert {path for path in large if not path.startswith("models/release/")} == set()
    assert all(path.endswith(".onnx") for path in large)
    by_kind = {}
    for path, size in sizes.items():
        kind = path.rpartition(".")[2]
        by_kind[kind] = by_kind.get(kind, 0) + size
    heaviest = sorted(by_kind.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < MAX_TREE, heaviest
