# SPDX-License-Identifier: Apache-2.0
"""Feature maps of torchvision's ResNets and timm's ResNet-Ds with seeded weights, for tests/golden/test_backbones.py.

    python tests/reference/backbones.py --write     stores names, shapes and features in tests/data/golden/backbones
    python tests/reference/backbones.py --check     compares with the stored ones

Needs the extra `parity`; part of `make parity`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import golden_seeds  # noqa: E402
from check_or_write import make_parser  # noqa: E402
from originals import import_torchvision  # noqa: E402

FOLDER = ROOT / "tests" / "data" / "golden" / "backbones"
NAMES = {
    "torchvision": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "timm": ("resnet18d", "resnet34d", "resnet50d", "resnet101d", "resnet152d"),
}
SHAPE = (1, 3, 65, 97)  # odd sizes show a pool that rounds the other way


def _features(source: str, name: str) -> tuple[list, list[np.ndarray]]:
    """Names with shapes of all tensors, and the four stages' feature maps."""
    if source == "torchvision":
        model = getattr(import_torchvision().models, name)()
    else:
        import_torchvision()  # timm imports it
        import timm

        model = timm.create_model(name)
    spec = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    state = golden_seeds.seeded_state(spec)
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()}, strict=True)
    model.eval()
    found = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _, __, out: found.append(out.numpy()))
    with torch.no_grad():
        model(torch.from_numpy(golden_seeds.seeded_input(name, SHAPE)))
    return spec, found


def main() -> int:
    """Exit status 1 when stored features are not those found."""
    args = make_parser("Feature maps of the original ResNets.").parse_args()
    wrong = 0
    for source, names in NAMES.items():
        for name in names:
            spec, features = _features(source, name)
            kept = {f"stage{i}": value[:, ::16] for i, value in enumerate(features)}
            path = FOLDER / f"{name}.npz"
            if args.write:
                text = np.frombuffer(json.dumps({"source": source, "spec": spec}).encode(), np.uint8)
                np.savez_compressed(path, about=text, **kept)
                print(f"{path.name}: {len(spec)} tensors")
                continue
            with np.load(path) as stored:
                errors = [np.abs(stored[key] - value).max() / np.abs(value).max() for key, value in kept.items()]
                same = json.loads(stored["about"].tobytes())["spec"] == spec
            print(
                f"{source} {name}: features differ by {max(errors):.1e} of the largest; names {'equal' if same else 'DIFFER'}"
            )
            wrong += not (same and max(errors) < 1e-5)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
