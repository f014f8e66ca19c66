# SPDX-License-Identifier: Apache-2.0
"""tools/visualize_attention.py and tools/attention_statistics.py on small untrained models of every family."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl import build_model
from paddle_dnl.analysis.capture import layers_of
from paddle_dnl.analysis.filters import dynamic_filters, strongest
from paddle_dnl.analysis.render import Scene
from paddle_dnl.analysis.sampled_points import sampled_attention
from paddle_dnl.cli.analysis import draw_maps, measure_maps
from paddle_dnl.data.classes import CITYSCAPES
from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.errors import UsageError
from paddle_dnl.models.dmnet import DMNet
from paddle_dnl.models.dnlnet import DNLNet
from paddle_dnl.models.setr import DGMN2SETR
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention
from paddle_dnl.nn.disentangled_nonlocal import DisentangledNonLocal2D
from paddle_dnl.nn.dynamic_filter import DynamicFilter

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = "{{type: Cityscapes, dataset_root: {data}, mode: {mode}, transforms: [{transforms}]}}"
BACKBONE = "backbone: {type: ResNet18, output_stride: 8}"
MODELS = {
    "dnl": f"{{type: DNLNet, num_classes: 19, {BACKBONE}}}",
    "nonlocal": f"{{type: DNLNet, num_classes: 19, unary: false, whitening: none, temperature: 1.0, {BACKBONE}}}",
    "unary": f"{{type: DNLNet, num_classes: 19, pairwise: false, {BACKBONE}}}",
    "dot": f"{{type: DNLNet, num_classes: 19, mode: dot_product, {BACKBONE}}}",
    "plain": f"{{type: DNLNet, num_classes: 19, pairwise: false, unary: false, {BACKBONE}}}",
    "dmnet": f"{{type: DMNet, num_classes: 19, mid_channels: 8, filter_sizes: [1, 3, 4], {BACKBONE}}}",
    "dgmn2": "{type: DGMN2SETR, num_classes: 19, decoder: naive, image_size: 128, backbone: {type: DGMN2_Tiny}}",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    generate(folder / "data", train=1, val=2, size=(128, 64), seed=0)
    convert_tree(folder / "data", num_workers=1)
    return folder


def _files(work, name: str, transforms: str = "{type: Normalize}") -> tuple[str, str, str]:
    """Configuration, weights, image; the weights are those of seed 0, made once."""
    config, weights = work / f"{name}.yml", work / f"{name}.pdparams"
    data = "\n".join(
        f"{mode}_dataset: " + DATA.format(data=work / "data", mode=mode, transforms=transforms)
        for mode in ("train", "val")
    )
    config.write_text(
        f"batch_size: 2\niters: 2\nmodel: {MODELS[name]}\n{data}\n"
        "optimizer: {type: SGD}\nlr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}\n"
        "loss: {types: [{type: CrossEntropyLoss}], coef: [1]}\n"
    )
    if not weights.exists():
        paddle.seed(0)
        paddle.save(build_model(str(config)).state_dict(), str(weights))
    image = sorted((work / "data" / "leftImg8bit" / "val").rglob("*.png"))[0]
    return str(config), str(weights), str(image)


def _visualize(work, tmp_path, name, *more, **settings):
    config, weights, image = _files(work, name, **settings)
    arguments = ["--config", config, "--model_path", weights, "--image_path", image, "--save_dir", str(tmp_path), *more]
    assert draw_maps.main([*arguments, "--device", "cpu"]) == 0
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    return folder, {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("dnl", {"unary.png", "pairwise_100_20.png", "both_100_20.png", "pairwise_5_60.png", "both_5_60.png"}),
        ("nonlocal", {"unary.png", "pairwise_100_20.png", "both_100_20.png", "pairwise_5_60.png", "both_5_60.png"}),
        ("unary", {"unary.png"}),
        ("dot", {"unary.png", "pairwise_100_20.png", "both_100_20.png", "pairwise_5_60.png", "both_5_60.png"}),
    ],
)
def test_nonlocal_models(work, tmp_path, name, wanted):
    folder, files = _visualize(work, tmp_path, name, "--points", "100,20", "5,60")
    assert files == wanted | {"overview.png", "viewer.html"}
    shown = json.loads(re.search(r'application/json">(.*?)</script>', (folder / "viewer.html").read_text())[1])
    assert set(shown["classes"]) <= set(CITYSCAPES) and len(shown["predicted"]) == np.prod(shown["grid"])
    assert cv2.imread(str(folder / "unary.png")).shape == (64, 128, 3)
    assert (folder / "viewer.html").stat().st_size < 200_000


@pytest.mark.parametrize("name, kind", [("dnl", DNLNet), ("dmnet", DMNet), ("dgmn2", DGMN2SETR)])
def test_attention_and_classes_come_from_one_pass(work, tmp_path, monkeypatch, name, kind):
    passes, forward = [], kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: (passes.append(x.shape), forward(self, x))[1])
    _visualize(work, tmp_path, name)
    assert len(passes) == 1


def test_several_blocks_have_a_folder_each(tmp_path):
    first, second = (DisentangledNonLocal2D(3, reduction=1) for _ in range(2))
    model = paddle.nn.Sequential(first, second)
    prepared = SimpleNamespace(tensor=paddle.randn([1, 3, 6, 8]), trans_info=[])
    scene = Scene(np.zeros((6, 8, 3), np.uint8), [(1, 2)], tmp_path, "a.png")
    draw_maps.visualize(model, prepared, scene, None)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"0", "1"} and (
        tmp_path / "1" / "viewer.html"
    ).exists()


def test_transforms_that_change_the_size(work, tmp_path):
    transforms = "{type: Resize, target_size: [192, 96]}, {type: Padding, target_size: [256, 128]}, {type: Normalize}"
    folder, _ = _visualize(work, tmp_path, "dnl", "--points", "127,63", transforms=transforms)
    assert cv2.imread(str(folder / "pairwise_127_63.png")).shape == (64, 128, 3)
    assert '"map": [12, 24]' in (folder / "viewer.html").read_text()  # without the padding


def test_dgmn2_shows_the_last_layer_of_each_stage_in_the_middle(work, tmp_path):
    _, files = _visualize(work, tmp_path, "dgmn2")
    assert files == {"overview.png"} | {f"samples_backbone.block{i}.1.attn_64_32.png" for i in (1, 2, 3, 4)}


def test_dgmn2_layers_by_name():
    layers = [SimpleNamespace(name=f"backbone.block{i}.{j}.attn") for i in (1, 2) for j in (0, 1, 2)]
    assert [layer.name for layer in draw_maps.chosen_layers(layers, None)] == [
        "backbone.block1.2.attn",
        "backbone.block2.2.attn",
    ]
    assert draw_maps.chosen_layers(layers, ["backbone.block1.0.attn"]) == layers[:1]
    with pytest.raises(UsageError, match=r"no nothing; the model has backbone\.block1\.0\.attn"):
        draw_maps.chosen_layers(layers, ["nothing"])


def test_dgmn2_samples_and_weights_make_the_layers_output(work):
    model = build_model(_files(work, "dgmn2")[0])
    for layer in layers_of(model, DGMN2Attention).values():  # start values have no offsets
        layer.conv_offset.weight.set_value(paddle.randn(layer.conv_offset.weight.shape) * 0.3)
    seen = {}
    layer = model.backbone.block2[0].attn
    layer.register_forward_post_hook(lambda _, inputs, out: seen.update(inputs=inputs, out=out))
    image = paddle.randn([1, 3, 65, 97])
    found = next(s for s in sampled_attention(model, image) if s.name == "backbone.block2.0.attn")
    tokens, height, width = seen["inputs"]
    assert found.size == (height, width)
    np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-5)
    value = layer._queries_keys_values(tokens, height, width)[2].numpy()
    for position in (0, 7, height * width - 1):
        rows, columns, weights = found.at(position)
        y = np.zeros(value.shape[:2])
        for head in range(len(rows)):  # bilinear by hand, zeros outside
            for row, column, weight in zip(rows[head], columns[head], weights[head], strict=True):
                for r in (int(np.floor(row)), int(np.floor(row)) + 1):
                    for c in (int(np.floor(column)), int(np.floor(column)) + 1):
                        if 0 <= r < height and 0 <= c < width:
                            share = (1 - abs(row - r)) * (1 - abs(column - c))
                            y[head] += weight * share * value[head, :, r, c]
        out = y.reshape(-1) @ layer.proj.weight.numpy() + layer.proj.bias.numpy()
        np.testing.assert_allclose(out, seen["out"].numpy()[0, position], rtol=0, atol=2e-5)


def test_dmnet_filters_are_those_that_are_applied(work, tmp_path):
    _, files = _visualize(work, tmp_path, "dmnet")
    assert files == {"overview.png", *(f"filters_dcm_modules.{i}.png" for i in range(3))}
    model = build_model(_files(work, "dmnet")[0])
    module = layers_of(model, DynamicFilter)["dcm_modules.1"]
    seen = {}
    module.norm.register_forward_post_hook(lambda layer, inputs, out: seen.update(convolved=inputs[0]))
    module.input_redu_conv.register_forward_post_hook(lambda layer, inputs, out: seen.update(x=out))
    filters = dynamic_filters(model, paddle.randn([1, 3, 65, 97]))
    assert [f.shape for f in filters.values()] == [(8, 1, 1), (8, 3, 3), (8, 4, 4)]
    kernels = paddle.to_tensor(filters["dcm_modules.1"]).unsqueeze(1)
    expected = F.conv2d(seen["x"], kernels, padding=1, groups=8)
    np.testing.assert_allclose(seen["convolved"].numpy(), expected.numpy(), atol=1e-4)


def test_strongest_filters_first():
    filters = np.stack([np.full((2, 2), value) for value in (0.1, -3.0, 1.0)])
    np.testing.assert_array_equal(strongest(filters, 2)[:, 0, 0], [-3.0, 1.0])


@pytest.mark.parametrize(
    "name, more, message",
    [("dnl", ("--points", "128,0"), "128,0 lies outside"), ("plain", (), "no non-local block, no DGMN2 attention")],
)
def test_what_cannot_be_shown_is_said(work, tmp_path, name, more, message):
    with pytest.raises(UsageError, match=message):
        _visualize(work, tmp_path, name, *more)


def test_commands_of_the_documentation_parse():
    lines = (ROOT / "docs" / "attention.md").read_text().splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("python tools/")]
    assert [Path(words[1]).stem for words in commands] == ["visualize_attention", "attention_statistics"]
    for words, module in zip(commands, (draw_maps, measure_maps), strict=True):
        args = module.make_parser().parse_args(words[2:])
        config = args.config if isinstance(args.config, str) else args.config[0]
        assert (ROOT / words[1]).exists() and (ROOT / config).exists()


def test_point_syntax(capsys):
    with pytest.raises(SystemExit):
        draw_maps.make_parser().parse_args(["--config", "a", "--image_path", "b", "--points", "1x2"])
    assert "1x2" in capsys.readouterr().err


def _measure(work, tmp_path, names, *more):
    made = [_files(work, name) for name in names]
    arguments = ["--config", *(m[0] for m in made), "--model_path", *(m[1] for m in made)]
    assert measure_maps.main([*arguments, "--save_dir", str(tmp_path), "--queries", "8", *more]) == 0
    return json.loads((tmp_path / "attention_statistics.json").read_text())


def test_statistics_of_several_models_on_the_same_queries(work, tmp_path):
    results = _measure(work, tmp_path, ["dnl", "nonlocal", "unary"], "--boundary_width", "2")
    assert set(results) == {"dnl", "nonlocal", "unary"}
    assert {r["images"] for r in results.values()} == {2} and results["dnl"]["boundary_width"] == 2
    assert "pairwise_category" not in results["unary"]["measures"]
    assert set(results["nonlocal"]["measures"]) == set(results["dnl"]["measures"])
    for measure in ("random_category", "random_boundary"):
        assert len({r["measures"][measure]["mean"] for r in results.values()}) == 1
    lines = (tmp_path / "attention_statistics.md").read_text().splitlines()
    assert len(lines) == 6 and lines[5].split("|")[1:4] == [" unary ", " - ", " - "]
    assert cv2.imread(str(tmp_path / "attention_statistics.png")).shape[2] == 3
    again = _measure(work, tmp_path, ["dnl"], "--boundary_width", "2")
    assert again["dnl"] == results["dnl"]


@pytest.mark.parametrize(
    "more, word",
    [(("--num_images", "0"), "num_images"), (("--name", "a", "b"), "name"), (("--queries", "-1"), "queries")],
)
def test_statistics_refuse_wrong_flags(work, tmp_path, more, word):
    with pytest.raises(UsageError, match=word):
        _measure(work, tmp_path, ["dnl"], *more)


def test_statistics_refuse_models_without_attention(work, tmp_path):
    with pytest.raises(UsageError, match="no non-local block"):
        _measure(work, tmp_path, ["plain"])
    with pytest.raises(UsageError, match="dot_product"):
        _measure(work, tmp_path, ["dot"])
