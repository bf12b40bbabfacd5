"""Packing: wall time, peak memory and bytes per face of `prepare` on the raw files of a data set.

python benchmarks/prepare.py --dataset fer2013 [--raw-dir DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE = """
import json, sys
from pathlib import Path
from fer_lib.params import load_params
from fer_lib.data.prepare import prepare
dataset, raw_dir, out_dir = sys.argv[1:]
meta = prepare(dataset, load_params(dataset).prepare, raw_dir=raw_dir or None, out_dir=out_dir)
# The peak of this process alone; getrusage would inherit the parent's.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({"peak_kb": int(peak.split()[1]), "n_faces": meta["n_faces"], "layout": meta["layout"]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="fer2013")
    parser.add_argument("--raw-dir", default="", help="default: data/raw/<dataset>")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out_dir, start = Path(folder) / "packed", time.perf_counter()
        command = [sys.executable, "-c", CODE, arguments.dataset, arguments.raw_dir, str(out_dir)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in out_dir.rglob("*") if path.is_file())
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{arguments.dataset}, {found['layout']}: {found['n_faces']:,} faces in {seconds:.1f} s")
    bytes_per_face = size / found["n_faces"]
    print(f"peak memory {found['peak_kb'] / 1024:.0f} MB, {bytes_per_face:,.0f} bytes per face on disk")


if __name__ == "__main__":
    main()
