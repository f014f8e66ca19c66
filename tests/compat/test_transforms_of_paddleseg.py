# SPDX-License-Identifier: Apache-2.0
"""Our transforms beside the live PaddleSeg's of the same names: same seeds, same samples."""

import inspect
import random

from paddle_dnl import registry
from paddle_dnl.compat import paddleseg as bridge
from paddle_dnl.data import transforms as ours

import numpy as np
import paddle
import pytest
from paddleseg import transforms as theirs
from paddleseg.core.infer import reverse_transform
from paddleseg.transforms import functional


def _sample(rows=37, columns=54, grey=False, seed=0):
    rng = np.random.default_rng(seed)
    shape = (rows, columns) if grey else (rows, columns, 3)
    image = rng.uniform(0, 255, shape).astype(np.float32)
    label = rng.integers(0, 5, (rows, columns)).astype(np.uint8)
    return {"img": image, "label": label, "gt_fields": ["label"], "trans_info": []}


CASES = [
    ("RandomHorizontalFlip", {}),
    ("RandomVerticalFlip", {"prob": 0.6}),
    ("Resize", {"target_size": [31, 44]}),
    ("Resize", {"target_size": [50, 40], "interp": "RANDOM"}),
    ("Resize", {"target_size": [100, 48], "keep_ratio": True, "size_divisor": 32, "interp": "AREA"}),
    ("Resize", {"target_size": [33, 47], "keep_ratio": True, "interp": "CUBIC"}),
    ("ResizeByLong", {"long_size": 41}),
    ("ResizeByShort", {"short_size": 41}),
    ("LimitLong", {"max_long": 40}),
    ("LimitLong", {"min_long": 71}),
    ("LimitLong", {"max_long": 80, "min_long": 20}),
    ("ResizeRangeScaling", {"min_value": 20, "max_value": 90}),
    ("ResizeStepScaling", {"min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0.25}),
    ("ResizeStepScaling", {"min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0}),
    ("ResizeStepScaling", {"min_scale_factor": 1.5, "max_scale_factor": 1.5}),
    ("Normalize", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
    ("Normalize", {}),
    ("Padding", {"target_size": [60, 50], "im_padding_value": 7, "label_padding_value": 254}),
    ("PaddingByAspectRatio", {"aspect_ratio": 1.1}),
    ("PaddingByAspectRatio", {"aspect_ratio": 2.3}),
    ("RandomPaddingCrop", {"crop_size": [20, 16]}),
    ("RandomPaddingCrop", {"crop_size": [70, 16], "im_padding_value": 9}),
    ("RandomScaleAspect", {}),
    ("RandomScaleAspect", {"min_scale": 0.2, "aspect_ratio": 0.5}),
    ("RandomScaleAspect", {"min_scale": 0}),
    ("RandomDistort", {}),
    ("RandomDistort", {"brightness_range": 0.4, "contrast_range": 0.4, "saturation_range": 0.4}),
    ("RandomDistort", {"hue_range": 90, "hue_prob": 1.0, "sharpness_prob": 0.7, "contrast_prob": 0.0}),
]  # fmt: skip


def _runs(cls, arguments, grey):
    """Six samples in a row, drawn from one seed."""
    random.seed(1)
    np.random.seed(1)
    transform = cls(**arguments)
    return [transform(_sample(grey=grey, seed=i)) for i in range(6)]


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("name, arguments", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_samples_are_equal(name, arguments, grey):
    if grey and name == "Normalize":
        arguments = {}
    mine = _runs(getattr(ours, name), arguments, grey)
    peer = _runs(getattr(theirs, name), arguments, grey)
    for a, b in zip(mine, peer, strict=True):
        np.testing.assert_array_equal(a["img"], b["img"])
        np.testing.assert_array_equal(a["label"], b["label"])
        assert (a["img"].dtype, a["label"].dtype) == (b["img"].dtype, b["label"].dtype) == (np.float32, np.uint8)
        # Ours note nothing where nothing was resized.
        assert a["trans_info"] == b["trans_info"] or name == "LimitLong" and not a["trans_info"]


def test_whole_pipelines_are_equal():
    """PaddleSeg's recipe for Cityscapes, from the BGR picture on."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    found = []
    for module in (ours, theirs):
        random.seed(5)
        np.random.seed(5)
        compose = module.Compose([
            module.ResizeStepScaling(0.5, 2.0, 0.25),
            module.RandomPaddingCrop([64, 32]),
            module.RandomHorizontalFlip(),
            module.RandomDistort(0.4, contrast_range=0.4, saturation_range=0.4),
            module.Normalize(),
        ])  # fmt: skip
        image = picture if module is ours else picture.astype(np.float32)
        label = np.zeros((60, 90), np.uint8)
        found.append([compose({"img": image.copy(), "label": label, "gt_fields": ["label"]}) for _ in range(6)])
    for mine, peer in zip(*found, strict=True):
        assert mine["img"].shape == (3, 32, 64) and mine["img"].dtype == np.float32
        np.testing.assert_array_equal(mine["img"], peer["img"])
        np.testing.assert_array_equal(mine["label"], peer["label"])


@pytest.mark.parametrize("radius", [1, 2, 3.5])
def test_edges_are_equal(radius):
    rng = np.random.default_rng(0)
    for size in ((40, 55), (7, 90)):
        label = np.kron(rng.integers(0, 5, size), np.ones((6, 6), int)).astype(np.uint8)
        label[rng.random(label.shape) < 0.001] = 3
        label[20:33, 8:40] = 255
        wanted = functional.mask_to_binary_edge(label, radius=radius, num_classes=5)
        found = ours.binary_edges(label, radius, 5)
        assert found.dtype == wanted.dtype and found.shape == wanted.shape and 0.05 < found.mean() < 0.99
        np.testing.assert_array_equal(found, wanted)


def test_one_large_image_changes_the_rule_for_the_next_there_and_not_here():
    for transform, right in ((ours.ResizeByShort(10, 20), True), (theirs.ResizeByShort(10, 20), False)):
        transform(_sample(10, 100))
        assert (transform(_sample(20, 30))["img"].shape[:2] == (10, 15)) == right


@pytest.mark.parametrize("make", [
    lambda: ours.ResizeByShort(10), lambda: ours.ResizeToFit([40, 20]), lambda: ours.ResizeByShort(31, 40),
    lambda: ours.Padding([60, 50]), lambda: ours.Resize([31, 44]), lambda: ours.LimitLong(40),
])  # fmt: skip
def test_what_resized_is_taken_back(make):
    """PaddleSeg's own inverse reads what ours note."""
    data = make()(_sample())
    logits = paddle.to_tensor(np.ascontiguousarray(data["img"].transpose(2, 0, 1)[None]))
    back = reverse_transform(logits, [(name, paddle.to_tensor(shape)) for name, shape in data["trans_info"]])
    assert tuple(back.shape) == (1, 3, 37, 54)


@pytest.mark.parametrize("kind", registry.REGISTRIES)
def test_same_names_take_paddlesegs_arguments(kind):
    """Ours wins where both have a name: then every argument of theirs must still be there, with its default."""
    registry.load_components()
    mine, peer = registry.REGISTRIES[kind].components_dict, bridge.manager(kind).components_dict
    shared = sorted(set(mine) & set(peer))
    expected = {
        "dataset": {"Cityscapes", "ADE20K", "Dataset"},
        "transform": {name for name, _ in CASES},
        "optimizer": {"SGD", "Momentum", "Adam", "AdamW"},
    }
    assert set(shared) >= expected.get(kind, set())
    for name in shared if kind in expected else ():
        assert registry.find(name, kind, "x") is mine[name]
        parameters = inspect.signature(mine[name]).parameters
        for key, parameter in inspect.signature(peer[name]).parameters.items():
            assert key in parameters and parameters[key].default == parameter.default, (name, key)
