# SPDX-License-Identifier: Apache-2.0
"""tools/convert_weights.py as it is typed: .pth files of three projects, in both formats, to .pdparams and a report.

The files are made here, with the projects' names and random numbers; the networks have 18 layers where that does not
matter, and are the published ones where their golden outputs are compared.
"""

import json
import subprocess
import sys
from pathlib import Path

from paddle_dnl.cli import convert
from paddle_dnl.config import Config
from paddle_dnl.errors import CheckpointError, UsageError
from paddle_dnl.files.outputs import JOURNAL
from paddle_dnl.models.build import build_model
from paddle_dnl.models.start_weights import load_start_weights

import golden_seeds
import numpy as np
import paddle
import pytest
import torch_writer
from test_convert import mmseg_name

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
SMALL = ["model.backbone.type=ResNet18"]
MMSEG = ROOT / "configs/dnlnet/mmseg/dnl_r50-d8_512x1024_40k_cityscapes.yml"
ADE20K = ROOT / "configs/dnlnet/mmseg/dnl_r50-d8_512x512_160k_ade20k.yml"
PADDLESEG = ROOT / "configs/dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml"
OFFICIAL = ROOT / "configs/dnlnet/official/dnl_temp_in_resnet101_cityscapes_769x769_60k.yml"
DGMN2 = ROOT / "configs/dgmn2/fpn_dgmn2_tiny_cityscapes_769x769_40k.yml"
SAVERS = {"zip": torch_writer.save, "stream": torch_writer.save_stream}


def theirs(source: str, ours: str) -> str:
    """The name that `source` has for a tensor of our DNLNet."""
    if source == "mmseg":
        return mmseg_name(ours)
    path, _, leaf = ours.rpartition(".")
    leaf = {"_mean": "running_mean", "_variance": "running_var"}.get(leaf, leaf)
    path = {
        "head.conv0._conv": "nlm.conva.0", "head.conv0._batch_norm": "nlm.conva.1.0",
        "head.conv1._conv": "nlm.convb.0", "head.conv1._batch_norm": "nlm.convb.1.0",
        "head.conv_cat._conv": "nlm.bottleneck.0", "head.conv_cat._batch_norm": "nlm.bottleneck.1.0",
        "head.cls.1": "nlm.bottleneck.3", "head.dnl_block": "nlm.ctb", "head.dnl_block.theta": "nlm.ctb.conv_query",
        "head.dnl_block.phi": "nlm.ctb.conv_key", "head.dnl_block.g": "nlm.ctb.conv_value",
        "head.dnl_block.conv_mask": "nlm.ctb.conv_mask", "head.aux.0._conv": "dsn.0.conv",
        "head.aux.0._batch_norm": "dsn.0.bn_relu.0", "head.aux.2": "dsn.2",
        **{f"backbone.conv1_{i}._conv": f"backbone.prefix.conv{i}" for i in (1, 2, 3)},
        **{f"backbone.conv1_{i}._batch_norm": f"backbone.prefix.bn{i}" for i in (1, 2, 3)},
    }.get(path)  # fmt: skip
    return f"{path}.{leaf}" if path else mmseg_name(ours)


@pytest.fixture(scope="module")
def published():
    """Our tensors with random numbers, and the same in the project's naming, by source."""
    made = {}
    for source, config in (("mmseg", MMSEG), ("official_dnl", OFFICIAL)):
        model = build_model(Config(config, opts=SMALL))
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        ours = {key: golden_seeds.seeded_input(key, shape) for key, shape in shapes.items()}
        counters = {
            theirs(source, key)[: -len("running_mean")] + "num_batches_tracked": np.array(7)
            for key in ours
            if key.endswith("_mean")
        }
        made[source] = config, ours, {theirs(source, key): value for key, value in ours.items()} | counters
    spec = json.loads((DATA / "golden/dgmn2_fpn_tiny/spec.json").read_text())["spec"]
    made["dgmn2"] = DGMN2, None, golden_seeds.seeded_state(spec)
    return made


def arguments(source, config, file, output, *more, opts=SMALL):
    command = ["--source", source, "--config", str(config), "--input", str(file), "--output", str(output), *more]
    return [str(a) for a in command] + (["--opts", *opts] if opts else [])


@pytest.fixture(scope="module")
def mmseg_file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("mmseg") / "dnl.pth"
    torch_writer.save(published["mmseg"][2], path)
    return path


@pytest.mark.parametrize("source", ["mmseg", "official_dnl"])
@pytest.mark.parametrize("form, wrapper, prefix", [("zip", "state_dict", ""), ("stream", "state_dict", "module.")])
def test_dnl_files_of_both_formats(published, tmp_path, source, form, wrapper, prefix):
    config, ours, state = published[source]
    SAVERS[form](state, tmp_path / "in.pth", wrapper=wrapper, prefix=prefix)
    output = tmp_path / "new" / "out.pdparams"
    output.parent.mkdir()
    (output.parent / "out.json").write_text("the graph of an export")
    assert convert.main(arguments(source, config, tmp_path / "in.pth", output)) == 0
    written = paddle.load(str(output))
    for key, value in ours.items():
        np.testing.assert_array_equal(np.asarray(written[key]), value, err_msg=key)
    report = json.loads(output.with_suffix(".conversion.json").read_text())
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert {row["from"]: row["to"] for row in report["mapped"]} == {theirs(source, key): key for key in ours}
    assert set(report["dropped"]) == counters and not report["filled"] and not report["kept"]
    assert (report["source"], report["input"], report["config"]) == (source, "in.pth", Path(config).name)
    assert (output.parent / "out.json").read_text() == "the graph of an export"
    names = {p.name for p in output.parent.iterdir()}
    assert names == {JOURNAL, "out.conversion.json", "out.json", "out.pdparams"}


@pytest.mark.parametrize("form", SAVERS)
def test_dgmn2_files_of_both_formats_compute_what_the_original_computed(published, tmp_path, form):
    config, _, state = published["dgmn2"]
    SAVERS[form](state, tmp_path / "in.pth", wrapper="model")
    golden, output = DATA / "golden/dgmn2_fpn_tiny/out.npz", tmp_path / "out.pdparams"
    more = ("--verify", golden)
    assert convert.main(arguments("dgmn2", config, tmp_path / "in.pth", output, *more, opts=[])) == 0
    report = json.loads(output.with_suffix(".conversion.json").read_text())
    assert report["verified"]["largest_error_relative_to_largest_logit"] < 1e-5
    assert report["verified"]["same_class"] == 1
    weight = np.asarray(paddle.load(str(output))["backbone.block1.0.attn.proj.weight"])
    np.testing.assert_array_equal(weight, state["backbone.block1.0.attn.proj.weight"].T)


def test_an_imagenet_file_becomes_start_weights_of_a_backbone(published, tmp_path):
    """Without `backbone.`, as classification files are; the result is what model.backbone.pretrained expects."""
    _, ours, state = published["mmseg"]
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    classifier = {"fc.weight": np.ones((10, 512), "float32"), "fc.bias": np.ones(10, "float32")}
    torch_writer.save(inside | classifier, tmp_path / "resnet18_v1c.pth", wrapper=None)
    output = tmp_path / "backbone.pdparams"
    more = ("--part", "backbone")
    assert convert.main(arguments("mmseg", MMSEG, tmp_path / "resnet18_v1c.pth", output, *more)) == 0
    model = build_model(Config(MMSEG, opts=SMALL))
    load_start_weights(model, {"backbone": {"pretrained": str(output)}})
    for key, value in model.backbone.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), ours[f"backbone.{key}"], err_msg=key)
    assert (
        json.loads(output.with_suffix(".conversion.json").read_text())["dropped"]["fc.weight"] == "ImageNet classifier"
    )


def test_paddle_files(tmp_path):
    opts = ["model.backbone.type=ResNet18_vd"]
    model = build_model(Config(PADDLESEG, opts=opts))
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    output = tmp_path / "out.pdparams"
    assert convert.main(arguments("paddleseg", PADDLESEG, tmp_path / "model.pdparams", output, opts=opts)) == 0
    written = paddle.load(str(output))
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(np.asarray(written[key]), value.numpy(), err_msg=key)
    assert len(json.loads(output.with_suffix(".conversion.json").read_text())["mapped"]) == len(model.state_dict())


def test_a_golden_output_of_another_network_writes_nothing(published, tmp_path):
    config, _, state = published["dgmn2"]
    state = state | {"decode_head.conv_seg.bias": state["decode_head.conv_seg.bias"] + 1}
    state["decode_head.conv_seg.bias"][3] += 1
    torch_writer.save(state, tmp_path / "in.pth")
    more = ("--verify", DATA / "golden/dgmn2_fpn_tiny/out.npz")
    with pytest.raises(CheckpointError, match="--verify .*logits differ by"):
        convert.main(arguments("dgmn2", config, tmp_path / "in.pth", tmp_path / "out.pdparams", *more, opts=[]))
    assert [p.name for p in tmp_path.iterdir()] == ["in.pth"]


@pytest.mark.parametrize(
    "source, config, opts, message",
    [
        ("official_dnl", MMSEG, SMALL, "as official_dnl weights .*file looks like: OpenMMLab DNL with ResNet-18"),
        ("paddleseg", MMSEG, SMALL, "as paddleseg weights .*file looks like: OpenMMLab DNL"),
        ("dgmn2", MMSEG, SMALL, "dgmn2 has no dnlnet weights; for this model the source can be: mmseg, official_dnl"),
        ("mmseg", OFFICIAL, SMALL, "tensors without a place in the model: .*conv_out"),
        ("mmseg", MMSEG, ["model.backbone.type=ResNet34"], "OpenMMLab DNL with ResNet-18; the model is: .*ResNet-34"),
        ("mmseg", ADE20K, SMALL,
         r"decode_head.conv_seg.weight -> head.cls.1.weight is \[19, .*the model wants \[150, .*give skip_classifier "
         r"\(--skip_classifier\)"),
    ],
    ids=["authors", "paddleseg", "dgmn2", "dialect", "depth", "classes"],
)  # fmt: skip
def test_files_for_another_model(mmseg_file, tmp_path, source, config, opts, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        convert.main(arguments(source, config, mmseg_file, tmp_path / "out.pdparams", opts=opts))
    assert str(mmseg_file) in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_classes_on_request(published, mmseg_file, tmp_path):
    ours, output = published["mmseg"][1], tmp_path / "out.pdparams"
    assert convert.main(arguments("mmseg", ADE20K, mmseg_file, output, "--skip_classifier")) == 0
    written = paddle.load(str(output))
    assert list(written["head.cls.1.weight"].shape)[0] == list(written["head.aux.2.bias"].shape)[0] == 150
    np.testing.assert_array_equal(np.asarray(written["head.conv1._conv.weight"]), ours["head.conv1._conv.weight"])
    assert len(json.loads(output.with_suffix(".conversion.json").read_text())["kept"]) == 4


@pytest.mark.parametrize("name", ["hostile_zip.pth", "hostile_stream.pth", "whole_module.pth"])
def test_hostile_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"{name}: .*it asks for (posix.system|torch.nn)"):
        convert.main(arguments("mmseg", MMSEG, DATA / "convert" / name, tmp_path / "out.pdparams"))
    assert not list(tmp_path.iterdir()), "something ran, or was written"


@pytest.mark.parametrize("form", SAVERS)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9999])
def test_truncated_files(published, tmp_path, form, share):
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    SAVERS[form](published["dgmn2"][2], whole)
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(CheckpointError, match="cut.pth: not a PyTorch file that can be read safely"):
        convert.main(arguments("dgmn2", DGMN2, cut, tmp_path / "out.pdparams", opts=[]))
    assert not list(tmp_path.glob("out.*"))


def test_flags_that_exclude_each_other(mmseg_file, tmp_path):
    for more, output, message in (
        (["--part", "backbone", "--skip_classifier"], "x.pdparams", "--part backbone"),
        ([], "x.pth", "must end in .pdparams or .safetensors"),
    ):
        with pytest.raises(UsageError, match=message):
            convert.main(arguments("mmseg", MMSEG, mmseg_file, tmp_path / output, *more))


def test_the_program_itself(mmseg_file, published, tmp_path):
    """Exit status 0 with weights that the model then loads; 1 and one line on what is wrong."""

    def run(*more, output="out.safetensors", opts=SMALL):
        command = arguments("mmseg", MMSEG, mmseg_file, tmp_path / output, *more, opts=opts)
        script = [sys.executable, str(ROOT / "tools/convert_weights.py"), *command]
        return subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    done = run()
    assert done.returncode == 0, done.stderr
    assert "tensors converted" in done.stdout + done.stderr
    model = build_model(Config(MMSEG, opts=SMALL), pretrained=tmp_path / "out.safetensors")
    for key, value in published["mmseg"][1].items():
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), value, err_msg=key)
    done = run(output="other.pdparams", opts=["model.backbone.type=ResNet50"])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("Error: ")][0].count("ResNet-50") == 1
    assert not (tmp_path / "other.pdparams").exists()
