"""Two thousand steps: memory, file handles, threads and processes stay as they were after the first two hundred.

Paddle's loader leaves a thread that ends, with its handles, up to five seconds after its last batch: everything but memory
is counted at a few places, after a rest that lets those of forty evaluations within a minute end.
"""

import json
import os
import sys
import time
from pathlib import Path

import pytest

STEPS, EVERY, SETTLED, RESTS, REST_SECONDS = 2000, 50, 200, (250, 1000, 1500, 2000), 7


def measure() -> dict[str, int]:
    """Of this process and its children: resident and shared memory in pages, handles, threads, processes."""
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    children = [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    return {
        "memory": resident - shared,
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "processes": len(children),
    }


def main(folder: Path) -> None:
    """Trains and prints what was measured after each save, and at the end."""
    from recording import RecordingTrainer, TrainOptions, make_config

    found = []

    class Measuring(RecordingTrainer):
        def _step(self, batches):
            losses = super()._step(batches)
            self.steps.clear()  # its notes are not the training's
            self.steps.append({})
            return losses

        def _save(self, scores):
            super()._save(scores)
            if self.progress.iteration in RESTS:
                time.sleep(REST_SECONDS)
            found.append({"iteration": self.progress.iteration, **measure()})

    config = make_config(folder, [f"iters={STEPS}"])
    options = TrainOptions(
        save_dir=str(folder / "output"), seed=7, save_interval=EVERY, keep_checkpoint_max=3, do_eval=True, use_ema=True,
        use_vdl=True, num_workers=2,
    )  # fmt: skip
    trainer = Measuring(config, options)
    trainer.run()
    found.append({"iteration": "end", **measure()})
    print(json.dumps(found))


@pytest.mark.slow
def test_two_thousand_steps(tmp_path, count_fault):
    from launching import Started

    started = Started("test_soak.py", [tmp_path], tmp_path)
    assert started.wait(580) == 0, started.text()[-3000:]
    started.require_nothing_left()
    *found, end = json.loads(started.text().splitlines()[-1])
    assert [row["iteration"] for row in found] == list(range(EVERY, STEPS + 1, EVERY))
    settled = [row for row in found if row["iteration"] > SETTLED]
    first, last = settled[0], settled[-1]
    growth = max(row["memory"] for row in settled) / first["memory"] - 1
    print(
        f"memory {first['memory'] * 4 // 1024} MiB at {first['iteration']}, growth {growth:.2%}; {first} {last} {end}"
    )
    assert growth <= 0.02, settled
    assert first["iteration"] == RESTS[0] and last["iteration"] == RESTS[-1]
    rested = [row for row in found if row["iteration"] in RESTS]
    for name in ("handles", "threads", "processes"):
        assert [row[name] for row in rested] == [rested[0][name]] * len(RESTS), (name, rested)
    assert end["processes"] == 0
    left = sorted(path.name for path in (tmp_path / "output").iterdir() if path.is_dir())
    assert len([name for name in left if name.startswith("iter_")]) == 3
    count_fault("soak steps", STEPS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
