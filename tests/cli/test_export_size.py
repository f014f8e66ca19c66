# SPDX-License-Identifier: Apache-2.0
"""export.py without a fixed size: refused before anything is imported or built, with the command to run."""

import subprocess
import sys
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.cli import export
from paddle_dnl.errors import ExportError

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DNLNET = ROOT / "configs/dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml"


def _refusal(*arguments: str) -> str:
    with pytest.raises(ExportError) as refused:
        export.main([*map(str, arguments), "--model_path", "my weights.pdparams"])
    return str(refused.value)


def test_names_the_model_and_the_command():
    text = _refusal("--config", DNLNET)
    command = f"--config {DNLNET} --model_path 'my weights.pdparams' --save_dir ./output/inference_model"
    assert "--input_shape is missing" in text and "DNLNet" in text
    assert text.endswith(f"python export.py {command} --input_shape 1 3 512 1024")


def test_keeps_the_batch_and_takes_the_crop(tmp_path):
    config = tmp_path / "other.yml"
    config.write_text(
        "model: {type: SemanticFPN}\ntrain_dataset: {transforms: [{type: RandomPaddingCrop, crop_size: [96, 64]}]}\n"
    )
    text = _refusal("--config", config, "--input_shape", 4, 3, -1, -1)
    assert "leaves sizes free" in text and text.endswith("--input_shape 4 3 64 96")


@pytest.mark.parametrize(
    "config", ["model: DNLNet", "model: {type: DNLNet}\ntrain_dataset: {transforms: [3, {crop_size: x}]}"]
)
def test_odd_configurations(config, tmp_path):
    path = tmp_path / "odd.yml"
    path.write_text(config)
    if "type" in config:
        assert _refusal("--config", path).endswith("--input_shape 1 3 512 1024")
    else:
        with pytest.raises(Exception, match="odd.yml"):
            export.main(["--config", str(path), "--model_path", "x"])


def test_overrides_count(tmp_path):
    assert "SemanticFPN is exported" in _refusal("--config", DNLNET, "--opts", "model.type=SemanticFPN")


def test_paddle_is_not_needed_for_it():
    program = (
        "import sys\nfrom paddle_dnl.cli import export\nfrom paddle_dnl.errors import ExportError\n"
        f"try:\n    export.main(['--config', {str(DNLNET)!r}, '--model_path', 'x'])\n"
        "except ExportError:\n    print(sorted({'paddle', 'paddleseg', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_list_is_that_of_the_models():
    registry.load_components()
    # Other tests register models of their own.
    ours = {name: kind for name, kind in registry.MODELS.components_dict.items() if "paddle_dnl." in kind.__module__}
    assert set(export.FIXED_SIZE) == {name for name, kind in ours.items() if not getattr(kind, "dynamic_safe", False)}
