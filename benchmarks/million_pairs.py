# SPDX-License-Identifier: Apache-2.0
"""Start of a training on a long list: CPU time and memory until the first sample, and what a loading process copies.

    python benchmarks/million_pairs.py --folder FOLDER --pairs 1000000

The pairs are hard links to a few small pictures, so that a million of them need no disk. The list is checked once, then a
second process starts on it as a training does, with the check remembered. `--no_first` measures the second part again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
_PER_FOLDER, _LINKS = 1000, 30_000  # links that ext4 allows for one file: 65,000


def make(folder: Path, pairs: int) -> None:
    """Writes the list and links its files."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    lines, image, label = [], None, None
    for number in range(pairs):
        if number % _LINKS == 0:
            image, label = (folder / f"{kind}_{number}.png" for kind in ("image", "label"))
            cv2.imwrite(str(image), rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            cv2.imwrite(str(label), np.arange(256, dtype=np.uint8).reshape(16, 16) % 19)
        places = [f"{kind}/{number // _PER_FOLDER:04d}/sequence_{number:08d}.png" for kind in ("images", "labels")]
        for place, original in zip(places, (image, label), strict=True):
            path = folder / place
            if number % _PER_FOLDER == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
            os.link(original, path)
        lines.append(" ".join(places))
    (folder / "train.txt").write_text("\n".join(lines) + "\n")


def _kilobytes(entry: str, pid: str = "self") -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(entry)))


def start(folder: Path, workers: int) -> dict[str, float]:
    """What a rank does with its data before the first step, measured in this process."""
    from types import SimpleNamespace

    from paddle_dnl import registry
    from paddle_dnl.training import preflight
    from paddle_dnl.training.sampling import PositionedDataset, PositionSampler, dataset_fingerprint

    import paddle  # noqa: F401

    imported = {
        "CPU s to import": time.process_time(),
        "MB after import": _kilobytes("Rss") / 1024,
        "MB after import, without files that are mapped": _kilobytes("Anonymous") / 1024,
    }
    cfg = {"type": "Dataset", "mode": "train", "dataset_root": str(folder), "train_path": str(folder / "train.txt")}
    began, wall = time.process_time(), time.monotonic()
    dataset = registry.build(
        {**cfg, "num_classes": 19, "transforms": [{"type": "Normalize"}]}, "dataset", "train_dataset"
    )
    listed = time.process_time()
    preflight.check_data(dataset, None, SimpleNamespace(num_workers=workers, skip_bad_samples=False))
    checked = time.process_time()
    fingerprint = dataset_fingerprint(dataset)
    printed = time.process_time()
    sampler = PositionSampler(len(dataset), 8, 100, seed=1)
    samples = PositionedDataset(dataset, 1)
    batch = next(iter(sampler))
    samples[batch[0]]
    found = {
        **imported,
        "CPU s to read the list": listed - began,
        "CPU s to check": checked - listed,
        "CPU s for the fingerprint": printed - checked,
        "CPU s in all, without import": time.process_time() - began,
        "s by the clock, without import": time.monotonic() - wall,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "MB at the first sample": _kilobytes("Rss") / 1024,
        "MB at the first sample, without files that are mapped": _kilobytes("Anonymous") / 1024,
    }
    found["MB copied by a worker"] = _copied_by_worker(samples, sampler, len(dataset)) / 1024
    assert len(fingerprint) == 16
    return found


def _copied_by_worker(samples, sampler, count: int) -> int:
    """Kilobytes that a forked process copies by looking at the entry of every sample, as an epoch does."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        before = _kilobytes("Private_Dirty")
        for index in sampler.order(0):
            samples.dataset.file_list[int(index)]
        os.write(writing, str(_kilobytes("Private_Dirty") - before - sampler.num_samples * 8 // 1024).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(reading, 100))


def main() -> None:
    """Prints the figures of both starts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the links and the cache; may be there")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--num_workers", type=int, default=2, help="processes of the first check")
    parser.add_argument("--no_first", action="store_true", help="the first check was done before")
    parser.add_argument("--start", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.start:
        print(json.dumps(start(args.folder, args.num_workers)))
        return
    if not (args.folder / "train.txt").exists():
        make(args.folder, args.pairs)
    environment = os.environ | {"SEG_HOME": str(args.folder / "cache")}
    words = [sys.executable, __file__, "--start", "--folder", args.folder, "--num_workers", str(args.num_workers)]
    for name in ("remembered",) if args.no_first else ("first", "remembered"):
        run = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        for key, value in json.loads(run.stdout.splitlines()[-1]).items():
            print(f"{name:10}  {value:8.1f}  {key}")


if __name__ == "__main__":
    main()
