# SPDX-License-Identifier: Apache-2.0
"""Damaged files: each place where a file is cut or a bit of it is flipped is noticed, and the error says what to do."""

import zlib

from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.weights.loading import load_weights, read_params, write_safetensors

import numpy as np
import paddle
import pytest
import whole_checkpoints
from tiny_export import CLASSES, NORMALIZE, ColorNet

PLACES = 12
GRAPH = "model.json" if paddle.__version__.startswith("3") else "model.pdmodel"
CHECKPOINT = ("model.pdparams", "model.pdopt", "model.pdstates", "ema_model.pdparams", "manifest.json")
EXPORT = (GRAPH, "model.pdiparams", "deploy.yaml")
ADVICE = ("use another", "export it again", "export the model again", "--resume_model", "No other checkpoint")


def _build():
    paddle.seed(3)
    model = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    return model, paddle.optimizer.Momentum(0.1, parameters=model.parameters())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint, an exported model and a safetensors file, all whole."""
    root = tmp_path_factory.mktemp("whole")
    model, optimizer = _build()
    model(paddle.ones([1, 3, 8, 8])).mean().backward()
    optimizer.step()
    states = {"iteration": 4, "best_miou": 0.5, "layout": {"seed": 7}}
    whole_checkpoints.save_checkpoint(
        root / "iter_4", model=model, optimizer=optimizer, states=states, ema=_build()[0], config_text="iters: 9\n"
    )
    export_model(ColorNet(), root / "deployed", input_shape=[1, 3, 8, 8], transforms=[NORMALIZE], class_info=CLASSES)
    write_safetensors({k: v.numpy() for k, v in model.state_dict().items()}, root / "model.safetensors")
    return root


def _load_checkpoint(root):
    model, optimizer = _build()
    return whole_checkpoints.load_checkpoint(root / "iter_4", model=model, optimizer=optimizer, ema=_build()[0])


def _load_export(root):
    Predictor(root / "deployed")
    return read_deploy_config(root / "deployed")


def _load_safetensors(root):
    return {key: value.tolist() for key, value in read_params(root / "model.safetensors").items()}


TARGETS = {
    **{f"iter_4/{name}": _load_checkpoint for name in CHECKPOINT},
    **{f"deployed/{name}": _load_export for name in EXPORT},
    "model.safetensors": _load_safetensors,
}


def _damaged(content: bytes, kind: str, name: str) -> list[bytes]:
    """The content cut at `PLACES` lengths, or with one bit flipped in as many places; the ends are among them."""
    generator = np.random.default_rng(zlib.crc32(f"{kind} {name}".encode()))
    size = len(content)
    places = [0, 1, size - 1, size // 2, *generator.integers(0, size, PLACES - 4).tolist()]
    if kind == "truncated files":
        return [content[:place] for place in places]
    flipped = []
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(generator.integers(8))
        flipped.append(bytes(changed))
    return flipped


@pytest.mark.parametrize("kind", ["truncated files", "flipped bits"])
@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_named_and_never_loaded(folders, tmp_path, name, kind):
    load, path = TARGETS[name], folders / name
    whole = path.read_bytes()
    load(folders)
    try:
        for content in _damaged(whole, kind, name):
            path.write_bytes(content)
            with pytest.raises(PaddleDnlError) as caught:
                load(folders)
            text = str(caught.value)
            said = text.replace(str(folders), "")  # a folder's name is no advice
            assert path.name in said and any(advice in said for advice in ADVICE), text
    finally:
        path.write_bytes(whole)
    load(folders)


@pytest.mark.parametrize("name", ["model.pdparams", "ema_model.pdparams"])
def test_weights_taken_out_of_a_checkpoint_are_compared_with_its_manifest(folders, name):
    """`val.py --model_path iter_4/model.pdparams` reads one file only; a flipped bit there would be a worse score."""
    path = folders / "iter_4" / name
    whole = path.read_bytes()
    try:
        for content in _damaged(whole, "flipped bits", f"alone {name}"):
            path.write_bytes(content)
            with pytest.raises(PaddleDnlError, match=f"{name}: damaged.*use another checkpoint"):
                load_weights(_build()[0], path)
    finally:
        path.write_bytes(whole)
    load_weights(_build()[0], path)


def test_paddlesegs_files_have_no_checksum_but_their_end_is_known(tmp_path):
    model, optimizer = _build()
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    paddle.save(optimizer.state_dict(), str(tmp_path / "model.pdopt"))
    for name in ("model.pdparams", "model.pdopt"):
        whole = (tmp_path / name).read_bytes()
        for content in _damaged(whole, "truncated files", f"bare {name}"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(PaddleDnlError, match=f"{name}: .*use another"):
                read_params(tmp_path / name)


def test_the_error_names_the_newest_whole_checkpoint(tmp_path):
    model, optimizer = _build()
    for iteration in (1, 2, 3):
        states = {"iteration": iteration}
        whole_checkpoints.save_checkpoint(
            tmp_path / f"iter_{iteration}", model=model, optimizer=optimizer, states=states
        )
    for name, says in (
        ("iter_3", "Whole is .*iter_2"),
        ("iter_2", "Whole is .*iter_1"),
        ("iter_1", "No other checkpoint"),
    ):
        path = tmp_path / name / "model.pdopt"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(PaddleDnlError, match=f"{name}/model.pdopt: damaged.*{says}"):
            whole_checkpoints.load_checkpoint(tmp_path / name, model=model, optimizer=optimizer)


def test_an_export_that_a_person_changed_says_how_to_go_on(folders):
    path = folders / "deployed" / "deploy.yaml"
    whole = path.read_text()
    try:
        path.write_text(whole.replace("0.5", "0.4"))
        with pytest.raises(PaddleDnlError, match="remove that line if you changed the file"):
            read_deploy_config(path)
        path.write_text(whole.replace("0.5", "0.4").partition("\n")[2])
        assert read_deploy_config(path).transforms[0]["mean"] == [0.4, 0.4, 0.4]
    finally:
        path.write_text(whole)
