# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/visualize_attention.py."""

import argparse
import dataclasses
import re
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.errors import UsageError


def point(text: str) -> tuple[int, int]:
    """Parses `x,y` in pixels."""
    found = re.fullmatch(r"(\d+),(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected x,y in pixels, for example 320,180; got {text!r}")
    return int(found[1]), int(found[2])


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/visualize_attention.py."""
    parser = argparse.ArgumentParser(
        description="Draws the attention of a model: maps of non-local blocks for the given query points, with an interactive "
        "page; sampled points of DGMN2; filters of DMNet."
    )
    _arguments.add_config(parser)
    parser.add_argument("--model_path", help=".pdparams or .safetensors file of trained weights")
    parser.add_argument("--image_path", required=True, help="an image, a folder, or a .txt list of images")
    parser.add_argument(
        "--points", nargs="+", type=point, metavar="X,Y", help="query points in pixels; default: the center"
    )
    parser.add_argument("--layers", nargs="+", help="DGMN2: names of attention layers; default: the last of each stage")
    parser.add_argument("--save_dir", default="./output/attention", help="output folder; contains a folder per image")
    parser.add_argument("--device", choices=_arguments.DEVICES, help="default: gpu if available, else cpu")
    return parser


def last_of_each_stage(names: list[str]) -> list[str]:
    """Returns the last attention layer of each stage in order, for example `backbone.block3.5.attn`."""
    stages = {re.sub(r"\.\d+\.attn$", "", name): name for name in names}
    return list(stages.values())


def chosen_layers(layers: list, names: list[str] | None) -> list:
    """Returns the named layers, or the last layer of each stage.

    Raises:
        UsageError: a layer does not exist.
    """
    known = [layer.name for layer in layers]
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise UsageError(f"--layers: no {', '.join(unknown)}; the model has {', '.join(known)}")
    wanted = names or last_of_each_stage(known)
    return [layer for layer in layers if layer.name in wanted]


def visualize(model, prepared, scene, names: list[str] | None, class_names=None) -> None:
    """Draws the attention of an image with one pass of the model.

    Args:
        model: model with attention layers of one of the known kinds.
        prepared: the image, see `paddle_dnl.analysis.images.Prepared`.
        scene: the image for the renderers, see `paddle_dnl.analysis.render.Scene`.
        names: names of the layers to draw, for DGMN2.
        class_names: array of class names, to also show the predicted class of each pixel; None: do not.

    Raises:
        UsageError: the model has no layers of a known kind.
    """
    from paddle_dnl.analysis.capture import layers_of
    from paddle_dnl.analysis.filters import dynamic_filters
    from paddle_dnl.analysis.geometry import Geometry
    from paddle_dnl.analysis.nonlocal_maps import nonlocal_attention
    from paddle_dnl.analysis.render import render_filters, render_nonlocal, render_samples
    from paddle_dnl.analysis.sampled_points import sampled_attention
    from paddle_dnl.evaluation.inference import WHOLE, infer_scores
    from paddle_dnl.nn.dgmn2_attention import DGMN2Attention
    from paddle_dnl.nn.disentangled_nonlocal import DisentangledNonLocal2D
    from paddle_dnl.nn.dynamic_filter import DynamicFilter

    def geometry(size):
        align = getattr(model, "align_corners", False)
        return Geometry(prepared.tensor.shape[2:], size, prepared.trans_info, align)

    def run(image):
        nonlocal scene
        if class_names is None:
            model(image)
        else:
            scores = infer_scores(model, image, prepared.trans_info, WHOLE)
            scene = dataclasses.replace(scene, predicted=class_names[scores[0].argmax(0).numpy()])

    if layers_of(model, DisentangledNonLocal2D):
        blocks = list(nonlocal_attention(model, prepared.tensor, run))
        for block in blocks:
            folder = scene.folder if len(blocks) == 1 else scene.folder / block.name
            render_nonlocal(block, geometry(block.size), dataclasses.replace(scene, folder=folder))
    elif layers_of(model, DGMN2Attention):
        chosen = chosen_layers(list(sampled_attention(model, prepared.tensor, run)), names)
        render_samples([(layer, geometry(layer.size)) for layer in chosen], scene)
    elif layers_of(model, DynamicFilter):
        filters = dynamic_filters(model, prepared.tensor, run)
        render_filters(filters, scene)
    else:
        raise UsageError(f"{type(model).__name__} has no non-local block, no DGMN2 attention and no dynamic filters")


def main(argv=None) -> int:
    """Draws the attention of all images; returns the exit status."""
    args = make_parser().parse_args(argv)
    model_path = _arguments.require_model_path(args)

    _arguments.select_device(args.device)
    config = _arguments.make_config(args)
    from paddle_dnl.analysis.images import Preparation
    from paddle_dnl.analysis.render import COMMON, Scene
    from paddle_dnl.data.classes import classes_of_config
    from paddle_dnl.data.images.image_files import find_images, require_outside
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.log import logger, progress
    from paddle_dnl.models.build import build_model

    import numpy as np

    prepare = Preparation(config)
    require_outside(args.save_dir, args.image_path)
    images = find_images(args.image_path, prepare.image_format.endings)
    # Other file names depend on the model; these are always written.
    folders = [Path(args.save_dir) / name.with_suffix("") for _, name in images]
    read = [*config.files, model_path, args.image_path, *(path for path, _ in images)]
    check_outputs([folder / name for folder in folders for name in COMMON], read, root=args.save_dir)
    model, names = build_model(config, pretrained=model_path), np.array(classes_of_config(config).names, object)
    for path, name in progress(images, "visualize"):
        prepared = prepare(path)
        height, width = prepared.picture.shape[:2]
        points = args.points or [(width // 2, height // 2)]
        for x, y in points:
            if x >= width or y >= height:
                raise UsageError(f"--points {x},{y} lies outside {path}, which is {width} wide and {height} high")
        folder = Path(args.save_dir) / name.with_suffix("")
        visualize(model, prepared, Scene(prepared.picture, points, folder, path.name), args.layers, names)
    logger.info(f"attention maps of {len(images)} images written to {args.save_dir}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.analysis.draw_maps")
