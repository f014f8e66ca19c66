# SPDX-License-Identifier: Apache-2.0
"""Two thousand steps: memory, file handles, threads and processes stay as they were after the first two hundred.

A sample of 150 steps is in every test run.

Paddle's loader leaves a thread that ends, with its handles, up to five seconds after its last batch: everything but memory
is counted at a few places, after a rest that lets those of forty evaluations within a minute end.
"""

import json
import os
import sys
import time
from pathlib import Path

import pytest

STEPS, EVERY, SETTLED, RESTS, REST_SECONDS = 2000, 50, 200, (250, 1000, 1500, 2000), 6
SHORT_STEPS, SHORT_EVERY, SHORT_SETTLED = 150, 25, 50


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


def main(folder: Path, steps: int, every: int, rests: tuple[int, ...]) -> None:
    """Trains and prints what was measured after each save, and at the end; rests at some."""
    from recording import RecordingTrainer, TrainOptions, make_config

    found = []

    class Measuring(RecordingTrainer):
        def step(self, batches):
            losses = super().step(batches)
            self.steps.clear()  # its notes are not the training's
            self.steps.append({})
            return losses

        def save(self, scores, is_written=False):
            super().save(scores, is_written=is_written)
            self.writer.wait()  # else its copy of the weights is measured, or not, by chance
            if not is_written:  # before the evaluation; measured once, after it
                return
            if self.state.iteration in rests:
                time.sleep(REST_SECONDS)
            found.append({"iteration": self.state.iteration, **measure()})

    config = make_config(folder, [f"iters={steps}"])
    options = TrainOptions(
        save_dir=str(folder / "output"), seed=7, save_interval=every, keep_checkpoint_max=3, do_eval=True, use_ema=True,
        use_vdl=True, num_workers=2,
    )  # fmt: skip
    trainer = Measuring(config, options)
    trainer.run()
    found.append({"iteration": "end", **measure()})
    print(json.dumps(found))


def _train(tmp_path, seconds, steps, every, rests):
    """What was measured after each save, and at the end, of a training that leaves nothing behind."""
    from launching import Started

    started = Started("test_soak.py", [tmp_path, steps, every, *rests], tmp_path)
    assert started.wait(seconds) == 0, started.text()[-3000:]
    started.require_nothing_left()
    *found, end = json.loads(started.text().splitlines()[-1])
    assert [row["iteration"] for row in found] == list(range(every, steps + 1, every))
    assert end["processes"] == 0
    return found, end


def test_a_hundred_and_fifty_steps(tmp_path):
    """So few that memory has not settled, hence a loose bound; of what leaks in each save or evaluation, four show."""
    rests = (SHORT_SETTLED, SHORT_STEPS)
    found, _ = _train(tmp_path, 120, SHORT_STEPS, SHORT_EVERY, rests)
    first, last = (row for row in found if row["iteration"] in rests)
    assert last["memory"] / first["memory"] - 1 <= 0.05, found
    for name in ("handles", "processes"):
        assert last[name] == first[name], (name, found)


@pytest.mark.slow
def test_two_thousand_steps(tmp_path):
    found, end = _train(tmp_path, 580, STEPS, EVERY, RESTS)
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
    left = sorted(path.name for path in (tmp_path / "output").iterdir() if path.is_dir())
    assert len([name for name in left if name.startswith("iter_")]) == 3


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4]), tuple(map(int, sys.argv[4:])))
