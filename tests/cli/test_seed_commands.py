# SPDX-License-Identifier: Apache-2.0
"""The command lines of DeepSparkHub's DNLNet page and of DMNet_paddle's, as they stand there.

They are typed by a shell in a copy of the repository. What their pages have the user provide is small here: Cityscapes is
generated, the configuration is edited (DeepSparkHub asks for it), start weights lie where the download would put them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.models.backbones.resnet import ResNet18_vd

import paddle
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Values in the recipes, and what they are here; the network of the start weights is small too.
SMALL = {
    "iters: 80000": "iters: 2",
    "iters: 100000": "iters: 2",
    "batch_size: 2": "batch_size: 1",
    "crop_size: [1024, 512]": "crop_size: [128, 64]",
    "ResNet50_vd": "ResNet18_vd",
    "ResNet101_vd": "ResNet18_vd",
}
# As in Deep-Spark/DeepSparkHub, cv/semantic_segmentation/dnlnet/paddlepaddle/README.md; `cd PaddleSeg` is the copy's folder.
DATA = """
python3 tools/data/convert_cityscapes.py --cityscapes_path data/cityscapes --num_workers 8
python3 tools/data/create_dataset_list.py data/cityscapes --type cityscapes --separator ","
"""
DEEPSPARK = r"""
export FLAGS_cudnn_exhaustive_search=True
export FLAGS_cudnn_batchnorm_spatial_persistent=True
export CUDA_VISIBLE_DEVICES=4,5,6,7 # setup 4 available cards
python3 -u -m paddle.distributed.launch train.py \
       --config configs/dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml \
       --do_eval \
       --precision fp16 \
       --amp_level O1
"""
# As in justld/DMNet_paddle, README.md; the page leaves the file after --model_path to the reader.
_DMNET = (
    "train.py --config configs/dmnet_cityscapes_1024x512_80k.yml  --do_eval --use_vdl --log_iter 100 --save_interval 1000 "
    "--save_dir output"
)
DMNET_ALONE = f"python {_DMNET}"
DMNET_LAUNCHED = f"python -m paddle.distributed.launch {_DMNET}"
DMNET_VAL = "python val.py --config configs/dmnet_cityscapes_1024x512_80k.yml --model_path "


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository with small recipes, data, and start weights in its home folder."""
    copy = tmp_path_factory.mktemp("PaddleSeg")
    for name in ("paddle_dnl", "configs", "tools", "train.py", "val.py"):
        take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        take(ROOT / name, copy / name)
    generate(copy / "data/cityscapes", train=2, val=1, size=(128, 64), seed=0)
    for path in (copy / "configs").rglob("*cityscapes*.yml"):
        text = path.read_text()
        for published, here in SMALL.items():
            text = text.replace(published, here)
        path.write_text(text)
    for name in ("resnet50_vd_ssld_v2", "resnet101_vd_ssld_v2", "resnet101_vd_ssld"):
        paddle.save(ResNet18_vd().state_dict(), str(copy / f"home/pretrained_model/{name}/model.pdparams"))
    return copy


def type_in(checkout, lines):
    """What a shell makes of the lines; `python` and `python3` are the interpreter of the tests."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE_", "CUDA_", "PYTHONPATH"))}
    environment |= {"SEG_HOME": str(checkout / "home"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["bash", "-ec", lines]
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_what_both_pages_type(checkout):
    status, said = type_in(checkout, DATA)
    assert status == 0, said
    assert len((checkout / "data/cityscapes/train.txt").read_text().split()) == 2
    status, said = type_in(checkout, DMNET_ALONE)
    assert status == 0 and "iter: 2/2" in said and "[EVAL] #Images: 1 mIoU:" in said, said[-3000:]
    assert list((checkout / "output").glob("vdlrecords.*.log"))
    status, said = type_in(checkout, DMNET_VAL + "output/best_model/model.pdparams")
    assert status == 0 and "[EVAL] #Images: 1 mIoU:" in said, said[-3000:]
    shutil.rmtree(checkout / "output")
    status, said = type_in(checkout, DMNET_LAUNCHED)
    assert status == 0 and "iter: 2/2" in said, said[-3000:]
    shutil.rmtree(checkout / "output")
    status, said = type_in(checkout, DEEPSPARK.replace("export CUDA_VISIBLE_DEVICES", "# export CUDA_VISIBLE_DEVICES"))
    assert status == 0 and "iter: 2/2" in said and "[EVAL] #Images: 1 mIoU:" in said, said[-3000:]


def test_gpus_that_are_not_there_are_said_once(checkout):
    """Four ranks, one line, which the launcher repeats at its end; no traceback in any rank's log."""
    status, said = type_in(checkout, DEEPSPARK)
    logs = {path.name: path.read_text() for path in (checkout / "log").glob("workerlog.*")}
    assert status != 0 and len(logs) == 4
    line = "Error (rank 0): 4 processes were launched for GPUs (CUDA_VISIBLE_DEVICES=4,5,6,7), and this PaddlePaddle"
    assert [text.count(line) for _, text in sorted(logs.items())] == [1, 0, 0, 0], logs
    assert all("Traceback" not in text and text.count("Error") <= 1 for text in [*logs.values()]), logs
    assert "Traceback" not in said and said.count(line) <= 2
