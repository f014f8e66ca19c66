# SPDX-License-Identifier: Apache-2.0
"""The first check of a dataset by two real ranks of one machine: each reads half of the pictures, and none reads them again."""

import json
from pathlib import Path

import tiny_training
from started_programs import run_program

PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {helpers!r})
import tiny_training
from paddle_dnl.data.checking import check

look, read = check._look_at, []
check._look_at = lambda dataset, place: read.append(Path(dataset.file_list[place][0]).name) or look(dataset, place)
folder, output = Path({folder!r}), sys.argv[1]
tiny_training.train(folder, ["iters=1"], save_dir=str(folder / output))
(folder / output / f"read_{{os.environ['PADDLE_TRAINER_ID']}}.json").write_text(json.dumps(read))
os._exit(0)  # as the programs do
"""


def _train(folder: Path, output: str) -> tuple[list[list[str]], str]:
    """The pictures that each rank has read, and the log of rank 0."""
    run_program(folder / "program.py", folder, 2, output)
    log = (folder / "log" / "workerlog.0").read_text()
    return [json.loads((folder / output / f"read_{rank}.json").read_text()) for rank in (0, 1)], log


def test_each_rank_reads_half(tmp_path):
    tiny_training.write_config(tmp_path)
    helpers = str(Path(tiny_training.__file__).parent)
    (tmp_path / "program.py").write_text(PROGRAM.format(helpers=helpers, folder=str(tmp_path)))
    read, log = _train(tmp_path, "first")
    assert [len(names) for names in read] == [4, 4]
    assert sorted(read[0] + read[1]) == [f"image_{i}.png" for i in range(8)]
    assert "the 2 processes of this machine read a share each" in log
    assert _train(tmp_path, "second")[0] == [[], []]
