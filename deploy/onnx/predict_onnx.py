# SPDX-License-Identifier: Apache-2.0
"""An exported folder on one picture, without paddle_dnl or Paddle: python predict_onnx.py FOLDER IMAGE LABEL.png"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import yaml


def read(path, channels, value_range):
    """Picture as float32 [H, W, C] on the scale 0..255, colours as red, green, blue; .npy holds [H, W, C] of any bands."""
    if str(path).endswith(".npy"):
        picture = np.load(path, allow_pickle=False)
    else:
        depth = cv2.IMREAD_ANYDEPTH if value_range else 0
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
        data = Path(path).read_bytes()
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flag | depth)
        is_cut = data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")  # JPEG without its end
        if picture is None or is_cut:
            raise SystemExit(f"{path}: is not a readable image")
        picture = picture[..., ::-1] if channels == 3 else picture
    picture = picture.reshape(*picture.shape[:2], -1)
    if picture.shape[2] != channels:
        raise SystemExit(f"{path}: has {picture.shape[2]} bands, the model takes {channels}")
    if value_range:
        low, high = map(np.float32, value_range)
        return (picture.astype(np.float32) - low) * np.float32(255 / (high - low))
    if picture.dtype != np.uint8:
        raise SystemExit(f"{path}: holds {picture.dtype}; the model was trained with 8 bits (no value_range)")
    return picture.astype(np.float32)


def resized(x, size):
    """Bilinear; OpenCV drops a last axis of one."""
    return cv2.resize(x, tuple(size)).reshape(size[1], size[0], -1)


def predict(folder, image_path):
    """Class of each pixel, uint8 (uint16 above 256 classes) [H, W]; `folder` was written by `export.py --format onnx`."""
    deploy = yaml.safe_load((Path(folder) / "deploy.yaml").read_text(encoding="utf-8"))["Deploy"]
    _, channels, height, width = deploy.get("input_shape") or [-1, 3, -1, -1]
    x = read(image_path, channels, deploy.get("value_range"))
    size = x.shape[1::-1]
    for step in deploy["transforms"]:
        if step["type"] == "Normalize":
            mean, std = (np.float32(step.get(key, [0.5] * channels)) for key in ("mean", "std"))
            x = (x / np.float32(255) - mean) / std
        elif step["type"] == "Resize" and set(step) <= {"type", "target_size"}:
            x = resized(x, step.get("target_size", (512, 512)))
        else:
            raise SystemExit(f"transform {step}: not in this example; see paddle_dnl.Predictor")
    if None not in (height, width) and min(height, width) > 0 and x.shape[:2] != (height, width):
        x = resized(x, (width, height))
    model = str(Path(folder) / deploy.get("onnx", "model.onnx"))  # or model_int8.onnx

    def run():
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # a sharp softmax leaves many: slow
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x.transpose(2, 0, 1)[None].copy()})[0][0]

    output = ThreadPoolExecutor(1).submit(run).result()  # its own thread: the option changes all later arithmetic of it
    if output.ndim == 3:  # exported with scores: resized before the best class is taken
        output = resized(output.transpose(1, 2, 0), size).argmax(-1)
    label = output.astype(np.uint8 if output.max() < 256 else np.uint16)
    return cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: python predict_onnx.py FOLDER IMAGE LABEL.png")
    if not cv2.imwrite(sys.argv[3], predict(sys.argv[1], sys.argv[2])):
        raise SystemExit(f"{sys.argv[3]}: cannot be written; the folder must exist")
