# SPDX-License-Identifier: Apache-2.0
"""The programs of `paddle-dnl`; to add a program, add a line here.

Each module has `make_parser()`, which does not import Paddle, and `main(argv)`, which returns the exit status.
"""

from typing import NamedTuple


class Program(NamedTuple):
    """Module and one-line description of a program."""

    module: str
    summary: str


PROGRAMS = {
    "train": Program("paddle_dnl.cli.train", "train a model"),
    "launch": Program("paddle_dnl.cli.launch", "start a program on several GPUs or machines"),
    "val": Program("paddle_dnl.cli.val", "evaluate a model on a validation set"),
    "predict": Program("paddle_dnl.cli.predict", "predict images with a model"),
    "export": Program("paddle_dnl.cli.export", "export a static graph for deployment and verify it"),
    "infer": Program("paddle_dnl.cli.infer", "run an exported model on images, a video or a camera"),
    "predict-dataset": Program("paddle_dnl.cli.deploy.predict_dataset", "predict millions of images with Ray Data"),
    "serve": Program("paddle_dnl.cli.deploy.serve", "serve an exported model over HTTP"),
    "quantize": Program("paddle_dnl.cli.deploy.quantize", "quantize an exported ONNX model to int8"),
    "benchmark": Program("paddle_dnl.cli.deploy.benchmark", "measure the backends of an exported model"),
    "convert": Program("paddle_dnl.cli.convert", "convert published weights of other projects"),
    "report": Program("paddle_dnl.cli.analysis.report", "write an HTML report of a training run"),
    "macs": Program("paddle_dnl.cli.analysis.count_macs", "count parameters and multiply-accumulates"),
    "configs": Program(
        "paddle_dnl.cli.configs", "list, show or copy configurations of the model zoo, or create one for your data"
    ),
    "check-gpu": Program("paddle_dnl.cli.check_gpu", "test all GPU features on this machine"),
    "info": Program("paddle_dnl.cli.info", "show versions, devices and optional libraries"),
    "completion": Program("paddle_dnl.cli.completion", "print code for shell completion"),
    "data import": Program(
        "paddle_dnl.cli.data.import_data", "convert labelme, COCO, VOC, CVAT or masks to training data"
    ),
    "data split": Program("paddle_dnl.cli.data.split_data", "write lists for training, validation and test"),
    "data describe": Program("paddle_dnl.cli.data.describe_data", "count classes, sizes and duplicates of a dataset"),
    "data preview": Program("paddle_dnl.cli.data.preview_data", "show pictures after preprocessing and augmentation"),
    "data mini-cityscapes": Program(
        "paddle_dnl.cli.data.mini_cityscapes", "generate a small dataset of synthetic street scenes"
    ),
    "data convert-cityscapes": Program(
        "paddle_dnl.cli.data.convert_cityscapes", "convert Cityscapes polygons to label images"
    ),
    "data convert-pascal-context": Program(
        "paddle_dnl.cli.data.convert_pascal_context", "convert PASCAL Context to label images"
    ),
    "data voc-augment": Program(
        "paddle_dnl.cli.data.voc_augment", "convert SBD labels to VOC2012/SegmentationClassAug"
    ),
    "data create-list": Program("paddle_dnl.cli.data.create_list", "write train.txt, val.txt and test.txt"),
    "attention maps": Program("paddle_dnl.cli.analysis.draw_maps", "draw attention maps of a model"),
    "attention statistics": Program("paddle_dnl.cli.analysis.measure_maps", "compare attention with labels"),
}


def split_command(words: list[str]) -> tuple[str | None, list[str]]:
    """Splits words into the program's name, of one or two words, and its arguments; None if they name no program.

    Underscores are equivalent to hyphens, as in `data convert_cityscapes`.
    """
    for count in (2, 1):
        name = " ".join(words[:count]).replace("_", "-")
        if len(words) >= count and name in PROGRAMS:
            return name, words[count:]
    return None, words
