# SPDX-License-Identifier: Apache-2.0
"""An exported folder on one picture, without paddle_dnl or Paddle: python predict_onnx.py FOLDER IMAGE LABEL.png"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import yaml


def predict(folder, image_path):
    """Class of each pixel, uint8 [H, W]; `folder` was written by `export.py --format onnx`."""
    deploy = yaml.safe_load((Path(folder) / "deploy.yaml").read_text(encoding="utf-8"))["Deploy"]
    picture = cv2.imdecode(np.fromfile(str(image_path), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{image_path}: is not a readable image")
    x = picture[..., ::-1].astype(np.float32)  # the networks take red, green, blue
    for step in deploy["transforms"]:
        if step["type"] == "Normalize":
            mean, std = (np.float32(step.get(key, [0.5] * 3)) for key in ("mean", "std"))
            x = (x / np.float32(255) - mean) / std
        elif step["type"] == "Resize" and set(step) <= {"type", "target_size"}:
            x = cv2.resize(x, tuple(step.get("target_size", (512, 512))))
        else:
            raise SystemExit(f"transform {step}: not in this example; see paddle_dnl.Predictor")
    height, width = (deploy.get("input_shape") or [-1] * 4)[2:]
    if None not in (height, width) and min(height, width) > 0 and x.shape[:2] != (height, width):
        x = cv2.resize(x, (width, height))
    model = str(Path(folder) / deploy.get("onnx", "model.onnx"))  # or model_int8.onnx

    def run():
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # a sharp softmax leaves many: slow
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x.transpose(2, 0, 1)[None].copy()})[0][0]

    with ThreadPoolExecutor(1) as thread:  # its own, for that option changes all later arithmetic of the thread
        output = thread.submit(run).result()
    size = picture.shape[1::-1]
    if output.ndim == 3:  # exported with scores: resized before the best class is taken
        return cv2.resize(output.transpose(1, 2, 0), size).reshape(*size[::-1], -1).argmax(-1).astype(np.uint8)
    return cv2.resize(output.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)


if __name__ == "__main__":
    cv2.imwrite(sys.argv[3], predict(sys.argv[1], sys.argv[2]))
