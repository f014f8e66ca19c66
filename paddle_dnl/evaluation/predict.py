"""Label pictures and overlays for images, with the dynamic graph: what predict.py does."""

from collections.abc import Iterable
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import ClassInfo, classes_of_config
from paddle_dnl.data.image_files import find_images
from paddle_dnl.data.overlay import overlay, save_image, save_label_png
from paddle_dnl.data.reading import read_image
from paddle_dnl.data.transforms import Compose
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import infer, infer_augmented, restore
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger, progress
from paddle_dnl.training import amp

import numpy as np
import paddle


def _colors(custom: list[int] | None, classes: ClassInfo):
    num_classes = len(classes.names)
    if custom is None:
        return classes.colors
    if len(custom) != 3 * num_classes or not all(0 <= value <= 255 for value in custom):
        raise UsageError(f"--custom_color: {num_classes} classes need {3 * num_classes} numbers from 0 to 255")
    return tuple(tuple(custom[i : i + 3]) for i in range(0, len(custom), 3))


def predict(
    model: paddle.nn.Layer,
    config,
    image_path: str,
    save_dir: str,
    *,
    custom_color: list[int] | None = None,
    precision: str = "fp32",
    amp_level: str = "O1",
    aug_eval: bool = False,
    scales=1.0,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    is_slide: bool = False,
    crop_size=None,
    stride=None,
    average: str = "logits",
    align_corners: bool = False,
    inputs: Iterable[str | Path | None] = (),
) -> int:
    """Predicts every image and writes `pseudo_color_prediction/NAME.png` and `added_prediction/NAME.png`.

    NAME is the image's path below what `image_path` names. Returns the number of images. The settings from `aug_eval` on are
    those of `paddle_dnl.evaluation.evaluator.evaluate`.

    Raises:
        DataError: no images, or one that cannot be read (named).
        UsageError: colours that do not fit the classes.
        OutputError: a result would replace an image, one of `inputs` (other files that the program reads), or a file that
            is not ours; nothing was written.
    """
    dataset_cfg = config.val_dataset_cfg
    colors = _colors(custom_color, classes_of_config(config))
    transforms = [registry.build(cfg, "transform") for cfg in dataset_cfg.get("transforms", [])]
    compose = Compose(transforms, img_channels=dataset_cfg.get("img_channels", 3))
    images = find_images(image_path)
    folders = [Path(save_dir) / "pseudo_color_prediction", Path(save_dir) / "added_prediction"]
    targets = [folder / name.with_suffix(".png") for _, name in images for folder in folders]
    check_outputs(targets, [*inputs, image_path, *(path for path, _ in images)], root=save_dir)
    slide = {"is_slide": is_slide, "crop_size": crop_size, "stride": stride}
    precision = amp.effective_precision(precision)
    logger.info(f"Start to predict {len(images)} images...")
    model.eval()
    for path, name in progress(images, "predict"):
        picture = read_image(path)
        data = compose({"img": picture})
        batch = paddle.to_tensor(data["img"][None])
        with paddle.no_grad(), amp.autocast(precision, amp_level):
            if aug_eval:
                scores = infer_augmented(
                    model,
                    batch,
                    data["trans_info"],
                    scales=scales if isinstance(scales, list | tuple) else (scales,),
                    flip_horizontal=flip_horizontal,
                    flip_vertical=flip_vertical,
                    average=average,
                    align_corners=align_corners,
                    **slide,
                )
            else:
                scores = restore(infer(model, batch, **slide), data["trans_info"], align_corners)
            label = paddle.argmax(scores, axis=1).numpy()[0].astype(np.uint8)
        name = name.with_suffix(".png")
        save_label_png(folders[0] / name, label, colors)
        save_image(folders[1] / name, overlay(picture, label, colors))
    logger.info(f"Predicted images are saved in {folders[1]} and {folders[0]}")
    return len(images)
