# SPDX-License-Identifier: Apache-2.0
"""Agreement and mIoU of backends and precisions on pictures, relative to a reference: the model itself, or float32."""

import zlib
from dataclasses import asdict, dataclass

from paddle_dnl.data.images.reading import read_label
from paddle_dnl.deployment.export.check import Comparison
from paddle_dnl.deployment.export.trial import LIMIT_SECONDS
from paddle_dnl.deployment.runtime.backend_process import BackendProcess
from paddle_dnl.deployment.runtime.backends.onnx_backend import OnnxBackend
from paddle_dnl.deployment.runtime.backends.openvino_backend import OpenvinoBackend, has_bf16
from paddle_dnl.deployment.runtime.backends.paddle_backend import PaddleBackend
from paddle_dnl.deployment.runtime.deploy_config import FILE_NAME, DeployConfig
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, ExportError, PaddleDnlError
from paddle_dnl.evaluation.metrics import Metrics, confusion_matrix
from paddle_dnl.log import logger

import numpy as np
import paddle

# Number of pictures used of a longer list, evenly spaced.
MAX_IMAGES = 100


@dataclass
class ImageScore:
    """Agreement and mIoU of one backend on the pictures.

    Attributes:
        images: number of compared pictures.
        agreement: share of pixels with the reference's class; None if the backend failed.
        miou: against the labels; None without labels.
        error: why the backend could not be run.
    """

    images: int
    agreement: float | None = None
    miou: float | None = None
    error: str | None = None

    def describe(self) -> str:
        """One clause for logs."""
        if self.error:
            return self.error
        miou = "" if self.miou is None else f", mIoU {self.miou:.4f}"
        return f"{100 * self.agreement:.3f} % of pixels have the reference's class{miou}"


class ScoredImages:
    """Pictures, with or without labels, on which backends are compared with a reference.

    Args:
        reference: the `Predictor` that defines the expected classes.
        pairs: (picture, label file or None), at least one.
        files: of an exported folder, with `label_map` and `ignore_index` of the label files.
        num_classes: of the model.

    Attributes:
        miou: of the reference; None without labels.
    """

    def __init__(self, reference: Predictor, pairs: list[tuple], files: DeployConfig, num_classes: int):
        self.pairs, self._files, self._num_classes = pairs, files, num_classes
        self._classes: list[bytes] = []
        self.miou = self._miou(reference, lambda i, found: self._classes.append(zlib.compress(found.tobytes(), 1)))

    def score(self, predictor: Predictor) -> ImageScore:
        """Runs another predictor on the same pictures."""
        same = total = 0

        def count(i: int, found: np.ndarray) -> None:
            nonlocal same, total
            wanted = np.frombuffer(zlib.decompress(self._classes[i]), found.dtype).reshape(found.shape)
            same, total = same + int((found == wanted).sum()), total + found.size

        miou = self._miou(predictor, count)
        return ImageScore(len(self.pairs), same / total, miou)

    def _miou(self, predictor: Predictor, observe) -> float | None:
        """mIoU over the labelled pictures; `observe` is called with the index of each picture and its classes `[h, w]`."""
        confusion = np.zeros((self._num_classes, self._num_classes), np.int64)
        for i, (image, label_path) in enumerate(self.pairs):
            found = predictor.predict([image])[0]
            observe(i, found)
            if label_path is not None:
                label, label_map = read_label(label_path), self._files.label_map
                if label_map is not None and label.max() >= len(label_map):
                    raise DataError(
                        f"{label_path}: holds {label.max()}; {FILE_NAME}: label_map ends at {len(label_map) - 1}"
                    )
                label = label if label_map is None else np.asarray(label_map)[label]
                if label.shape != found.shape:
                    raise DataError(
                        f"{label_path}: is {label.shape[1]}x{label.shape[0]}, its picture {found.shape[1]}x{found.shape[0]}"
                    )
                confusion += confusion_matrix(found, label, self._num_classes, self._files.ignore_index)
        return Metrics.from_confusion(confusion).miou if confusion.any() else None


def evenly_sampled(items: list, count: int) -> list:
    """At most `count` evenly spaced items, from the first on."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


class _ModelBackend:
    """The dynamic graph with the interface of a backend.

    Args:
        model: in evaluation mode; maps a batch `[N, C, H, W]` to what the exported graph gives.
    """

    name = "model"

    def __init__(self, model: paddle.nn.Layer):
        self._model = model

    def run(self, batch: np.ndarray) -> np.ndarray:
        """The model's output for a batch.

        Raises:
            ExportError: the model refuses it.
        """
        try:
            with paddle.no_grad():
                return self._model(paddle.to_tensor(batch)).numpy()
        except PaddleDnlError:
            raise
        except Exception as error:  # whatever its layers raise
            raise ExportError(f"--verify_images: the model refuses a batch {list(batch.shape)}: {error}") from error


class ImageCheck:
    """Compares every backend and precision that this machine can run with the dynamic graph on pictures.

    All use the same `Predictor` with preprocessing, tiles and resizing of deployment. Each backend runs in a child process,
    which needs `if __name__ == "__main__"` in a script that uses this class.

    Args:
        pairs: (picture, label file or None), at least one.
    """

    def __init__(self, pairs: list[tuple]):
        self.pairs = pairs

    def run(self, model: paddle.nn.Layer, files: DeployConfig, num_classes: int, found: dict[str, Comparison]) -> dict:
        """Entries for `verified` of deploy.yaml: `images` (number, mIoU of the model) and `precisions` by backend and precision.

        Args:
            model: maps a batch to what the exported graph gives; in evaluation mode.
            files: of the folder with the written export.
            num_classes: of the model.
            found: result of `verify`; backends that failed are left out.

        Raises:
            DataError: a picture or label that cannot be used.
            ExportError: the model refuses a picture.
        """
        count = len(self.pairs)
        logger.info(f"verifying backends and precisions on {count} images")
        reference = Predictor(files.folder, backend=_ModelBackend(model))
        images = ScoredImages(reference, self.pairs, files, num_classes)
        precisions = {}
        for label, (backend, options) in _trials(found).items():
            score = score_in_process(images, files, backend, **options)
            logger.info(f"{label} on {count} images: {score.describe()}")
            precisions[label] = asdict(score)
        return {"images": {"images": count, "miou": images.miou}, "precisions": precisions}


def score_in_process(images: ScoredImages, files: DeployConfig, backend: str, **options) -> ImageScore:
    """The score of a backend in a child process; a crash of native code becomes the score's `error`."""
    process = None
    try:
        process = BackendProcess(files.folder, backend, time_limit=LIMIT_SECONDS, **options)
        return images.score(Predictor(files.folder, backend=process))
    except ExportError as error:
        return ImageScore(len(images.pairs), error=str(error))
    finally:
        if process is not None:
            process.close()


def _trials(found: dict[str, Comparison]) -> dict[str, tuple[str, dict]]:
    """Name in deploy.yaml -> (backend, options)."""
    trials: dict[str, tuple[str, dict]] = {f"{PaddleBackend.name} fp32": (PaddleBackend.name, {})}
    if found["mkldnn"].ok:
        trials["onednn fp32"] = (PaddleBackend.name, {"enable_mkldnn": True})
    if "onnxruntime" in found:
        trials[f"{OnnxBackend.name} fp32"] = (OnnxBackend.name, {})
    if "onnxruntime_fp16" in found:
        trials[f"{OnnxBackend.name} fp16"] = (OnnxBackend.name, {"precision": "fp16"})
    if "openvino" in found and found["openvino"].ok:
        trials[f"{OpenvinoBackend.name} fp32"] = (OpenvinoBackend.name, {})
        if has_bf16():
            trials[f"{OpenvinoBackend.name} bf16"] = (OpenvinoBackend.name, {"precision": "bf16"})
        else:
            logger.info(f"{OpenvinoBackend.name} bf16 is not verified: this processor has no bfloat16 arithmetic")
    return trials
