# SPDX-License-Identifier: Apache-2.0
"""`Predictor`: runs an exported model on pictures."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.images.block_rows import open_rows
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.images.picture_rows import ArrayRows, Tiled
from paddle_dnl.data.images.resizing import resized, restored
from paddle_dnl.data.overlay import as_label
from paddle_dnl.data.tiling import TileGrid
from paddle_dnl.data.transforms.compose import Compose
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.own_components import require_modules
from paddle_dnl.deployment.runtime.selection import make_backend
from paddle_dnl.errors import ConfigError, DataError, UsageError
from paddle_dnl.log import logger
from paddle_dnl.profile.measuring import seconds_of_runs

import cv2
import numpy as np

WRONG_SIZES = (None, "resize", "refuse")
TILES = ("auto", "never")
# Pictures that exceed the model's input by more than this factor along an axis are processed in tiles.
TILED_FROM = 1.5
# 8K video has 33 million pixels, a high-resolution camera 60 million; larger files are usually attacks or mistakes.
MAX_PIXELS = 80_000_000


class Predictor:
    """Runs an exported model on pictures.

        predictor = Predictor("output/inference_model")
        labels = predictor.predict(["street.png"])  # one uint8 [H, W] per picture

    Args:
        folder: an exported folder or its deploy.yaml.
        backend: `paddle`, `onnxruntime`, `openvino` or `auto`; or a backend object, such as a `BackendProcess`.
        wrong_size: for models with a fixed input size, what to do with pictures of another size: `resize` or `refuse`;
            None: resize, except for pictures that `tile` applies to.
        tile: `auto`: pictures more than 1.5 times as large as the model's input are processed in overlapping tiles at
            their own resolution, if `wrong_size` is None and Deploy.transforms keep the size. `never`: they are
            resized, which loses details.
        tile_overlap: overlap of neighboring tiles as a share of the tile, 0 to 0.5.
        tile_batch: tiles per run, for models with a free batch size.
        max_pixels: larger picture files are refused before they are decoded; None: no limit.
        value_range: (low, high), the pixel values that are mapped to 0 and 255; default: from deploy.yaml.
        options: fields of `paddle_dnl.deployment.runtime.options.BackendOptions`, such as `device`, for a backend that
            is given by name.

    Attributes:
        files: content of deploy.yaml.
        classes: class names and colors; None in folders exported by PaddleSeg.
        image_format: number of channels and scale of the pictures.
        output_kind: (name of the output's dtype, number of classes or None if the output is class numbers); set by the
            first run.

    Raises:
        ConfigError: deploy.yaml is missing or invalid.
        ExportError: files are missing or cannot be loaded.
        UsageError: an unsupported device, backend or setting.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        backend="paddle",
        wrong_size: str | None = None,
        tile: str = "auto",
        tile_overlap: float = 0.25,
        tile_batch: int = 1,
        max_pixels: int | None = MAX_PIXELS,
        value_range: tuple[float, float] | None = None,
        **options,
    ):
        backend = options.pop("engine", backend)  # deprecated name of the argument
        if wrong_size not in WRONG_SIZES:
            raise UsageError(f"wrong_size {wrong_size!r} is not one of {', '.join(WRONG_SIZES[1:])}")
        if tile not in TILES:
            raise UsageError(f"tile {tile!r} is not one of {', '.join(TILES)}")
        if not 0 <= tile_overlap <= 0.5:
            raise UsageError(f"tile_overlap must be from 0 to 0.5, got {tile_overlap}")
        self._wrong_size, self._max_pixels, self._said_enlarged = wrong_size, max_pixels, False
        if tile_batch < 1:
            raise UsageError(f"tile_batch must be at least 1, got {tile_batch}")
        self._tile_overlap, self._tile_batch = tile_overlap, tile_batch
        self.files = read_deploy_config(folder)
        self.classes = self.files.classes
        self.image_format = ImageFormat.of(self.files).with_range(value_range)
        require_modules(self.files)
        try:
            steps = [registry.build(step, "transform", "Deploy.transforms") for step in self.files.transforms]
        except ConfigError as error:
            raise ConfigError(f"{self.files.folder / self.files.name}: {error}") from error
        self._compose = Compose(steps, img_channels=self.image_format.channels)
        self.output_kind: tuple[str, int | None] | None = None
        self._tiles = tile == "auto" and wrong_size is None and self._keeps_size()
        self._backend = (
            make_backend(backend, self.files, BackendOptions(**options)) if isinstance(backend, str) else backend
        )

    def read(self, path: str | Path) -> np.ndarray:
        """Reads a picture file into the array that `prepare` accepts, see `data.images.image_format.ImageFormat.read`.

        Raises:
            DataError: the file is missing, empty, damaged, truncated, not a picture, or larger than `max_pixels`.
        """
        return self.image_format.read(path, max_pixels=self._max_pixels)

    def open(self, path: str | Path) -> np.ndarray | Tiled:
        """Like `read`, but returns a `Tiled` for a picture that is processed in tiles.

        Raises:
            DataError: see `read`.
        """
        if not self._tiles:
            return self.read(path)
        rows = open_rows(path, self.image_format, max_pixels=self._max_pixels)
        if self._is_large(*rows.size):
            return Tiled(rows)
        with contextlib.closing(rows):
            return rows.read(0, rows.size[0])

    def decode(self, content: bytes, name: str = "picture") -> np.ndarray:
        """Like `read`, for the content of a file (at least one byte); `name` is used in error messages."""
        data = np.frombuffer(content, np.uint8)
        return self.image_format.decode(data, name, max_pixels=self._max_pixels)

    def _keeps_size(self) -> bool:
        """Whether Deploy.transforms keep the size of pictures that are larger than the model's input."""
        if self.files.fixed_size is None:
            return False
        size = tuple(2 * side for side in self.files.fixed_size)
        try:
            tensor = self._compose({"img": self.image_format.blank(*size)})["img"]
        except (ValueError, TypeError, DataError, cv2.error):
            return False
        return tensor.shape[1:] == size

    def _is_large(self, height: int, width: int) -> bool:
        size = self.files.fixed_size
        return size is not None and (height > TILED_FROM * size[0] or width > TILED_FROM * size[1])

    def preprocess(self, image: str | Path | np.ndarray, name: str | None = None) -> tuple["np.ndarray | Tiled", list]:
        """Calls `prepare` for a file, or for an array of pixel values (BGR if it has three channels).

        Error messages use `name`; default: the path of the file.
        """
        if isinstance(image, np.ndarray):
            name = name or "image array"
            return self.prepare(self.image_format.of_array(image, name), name)
        found = self.open(image)
        return (found, []) if isinstance(found, Tiled) else self.prepare(found, name or image)

    def prepare(self, pixels: np.ndarray, name: str | Path) -> tuple["np.ndarray | Tiled", list]:
        """Converts pixels from `read` to network input `[C, H, W]` and a list of the sizes before each transform.

        A picture that is processed in tiles becomes a `Tiled`, for `run_each` or `run_tiled`.
        """
        if self._tiles and self._is_large(*pixels.shape[:2]):
            return Tiled(ArrayRows(pixels)), []
        data = self._compose.picture(pixels, name, "Deploy.transforms")
        tensor, info = data["img"], list(data["trans_info"])
        size = self.files.fixed_size
        if size is not None and tensor.shape[1:] != size:
            if self._wrong_size == "refuse":
                raise DataError(
                    f"{name}: is {tensor.shape[2]}x{tensor.shape[1]} after Deploy.transforms, this model takes "
                    f"{size[1]}x{size[0]}; resize it, or allow that with wrong_size resize (--wrong_size)"
                )
            if self._is_large(*tensor.shape[1:]):
                logger.warning(
                    f"{name}: {tensor.shape[2]}x{tensor.shape[1]} pixels are squeezed into {size[1]}x{size[0]}, which loses "
                    "their details; tiles (--tile auto, without --wrong_size) keep them"
                )
            elif not self._said_enlarged and min(size[i] / tensor.shape[i + 1] for i in range(2)) > TILED_FROM:
                self._said_enlarged = True
                logger.warning(
                    f"{name}: {tensor.shape[2]}x{tensor.shape[1]} pixels are enlarged to {size[1]}x{size[0]}, another scale than "
                    "in the evaluation; export the model for the size of the pictures (--input_shape)"
                )
            info.append(("resize", tensor.shape[1:]))
            tensor = resized(tensor.transpose(1, 2, 0), size[::-1]).transpose(2, 0, 1)
        return np.ascontiguousarray(tensor, np.float32), info

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.name

    @property
    def input_name(self) -> str:
        """Name of the graph's input."""
        return self._backend.input_name

    @property
    def output_name(self) -> str:
        """Name of the graph's output."""
        return self._backend.output_name

    @property
    def parallel(self) -> int:
        """Number of batches that the backend runs concurrently."""
        return getattr(self._backend, "parallel", 1)

    def close(self) -> None:
        """Ends the backend's child process, if it has one."""
        if hasattr(self._backend, "close"):
            self._backend.close()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Returns the graph's output for a batch `[N, C, H, W]`; pads and splits it for a fixed batch size."""
        fixed = self.files.fixed_batch
        most = fixed * self.parallel if fixed else len(batch)
        if len(batch) > most:
            return np.concatenate([self.run(batch[i : i + most]) for i in range(0, len(batch), most)])
        missing = -len(batch) % (fixed or 1)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        output = self._backend.run(filled)
        self.output_kind = self.output_kind or (output.dtype.name, output.shape[1] if output.ndim == 4 else None)
        return output[: len(batch)]

    def postprocess(self, output: np.ndarray, info: list) -> np.ndarray:
        """Converts one output, classes `[h, w]` or scores `[K, h, w]`, to classes of the picture's size.

        Returns:
            `[H, W]`, uint8, or uint16 if a class number is above 255.
        """
        if output.ndim == 3:
            return as_label(restored(output, info, cv2.INTER_LINEAR).argmax(0))
        return as_label(restored(as_label(output)[None], info, cv2.INTER_NEAREST)[0])

    def require_scores(self) -> None:
        """Checks that the graph outputs scores.

        Raises:
            UsageError: the graph ends with argmax.
        """
        if self.files.output_op == "argmax":
            raise UsageError(
                f"{self.files.folder}: gives classes, not probabilities; export the model again with --output_op softmax"
            )

    def probabilities(self, output: np.ndarray, info: list) -> np.ndarray:
        """Converts one output of scores `[K, h, w]` to probabilities `[K, H, W]` float32 of the picture's size.

        Logits are resized before the softmax, as in predict.py and val.py.

        Raises:
            UsageError: see `require_scores`.
        """
        self.require_scores()
        scores = restored(output, info, cv2.INTER_LINEAR)
        if self.files.output_op == "softmax":
            return scores
        scores = np.exp(scores - scores.max(0))
        return scores / scores.sum(0)

    def predict(self, images: list, batch_size: int | None = None) -> list[np.ndarray]:
        """Predicts the classes of each picture, `[H, W]` uint8 (uint16 if a number is above 255) at the picture's size.

        Args:
            images: files, or arrays of pixel values: BGR `[H, W, 3]`, gray `[H, W]`, or channels `[H, W, C]`.
            batch_size: images per run; default: the fixed batch size of the export, else 1. Pictures whose sizes differ
                after preprocessing are run separately.

        Raises:
            DataError: a picture cannot be read.
            ExportError: the backend failed.
            UsageError: `images` is not a list, or the batch size is below 1.
        """
        if not isinstance(images, list | tuple):
            raise UsageError(f"predict: expected a list of images, got {type(images).__name__}; wrap one image in [ ]")
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        size = batch_size or self.files.fixed_batch or 1
        labels: list[np.ndarray] = []
        for start in range(0, len(images), size):
            prepared = [self.preprocess(image) for image in images[start : start + size]]
            outputs = self.run_each([tensor for tensor, _ in prepared])
            labels += [self.postprocess(out, info) for out, (_, info) in zip(outputs, prepared, strict=True)]
        return labels

    def predict_probabilities(self, images: list) -> list[np.ndarray]:
        """Predicts the probabilities of each picture, `[K, H, W]` float32 at the picture's size, one picture per run.

        Args:
            images: see `predict`.

        Raises:
            UsageError: see `require_scores`.
            DataError, ExportError: see `predict`.
        """
        self.require_scores()
        found = []
        for image in images:
            tensor, info = self.preprocess(image)
            found.append(self.probabilities(self.run_each([tensor], with_scores=True)[0], info))
        return found

    def run_tiled(self, picture: "Tiled", run=None, with_scores: bool = False) -> np.ndarray:
        """Predicts a picture in overlapping tiles.

        Args:
            picture: from `prepare`.
            run: function from a batch `[N, C, h, w]` to the output; default: `self.run`.
            with_scores: return the blended scores instead of the classes; they are held in memory for the whole
                picture.

        Returns:
            Classes `[H, W]`, or scores `[K, H, W]`.
        """
        grid, results = self._tile_results(picture, run or self.run)
        if with_scores:
            return np.concatenate(list(grid.blend(results)), axis=1)
        return np.concatenate(list(grid.labels(results)))

    def tiled_strips(self, picture: "Tiled") -> Iterator[np.ndarray]:
        """Like `run_tiled`, but yields the classes in strips `[rows, W]` from top to bottom.

        Memory: pixels and scores of one row of tiles, proportional to the picture's width.
        """
        grid, results = self._tile_results(picture, self.run)
        yield from grid.labels(results)

    def _tile_results(self, picture: "Tiled", run):
        """Returns the tile grid of a picture, and a function from the top of a row of tiles to their outputs."""
        size, rows = self.files.fixed_size, picture.rows
        grid = TileGrid(rows.size, size, tuple(int(self._tile_overlap * side) for side in size))
        batch_size = (self.files.fixed_batch or self._tile_batch) * self.parallel

        def results(top: int):
            tensors = (self._compose({"img": tile})["img"] for tile in grid.row(top, rows.read))
            while batch := list(itertools.islice(tensors, batch_size)):
                yield from run(np.stack(batch).astype(np.float32, copy=False))

        return grid, results

    def run_each(self, tensors: list, with_scores: bool = False) -> list[np.ndarray]:
        """Returns the graph's output for each input: `[C, H, W]`, batched by size, or a `Tiled`, see `run_tiled`."""
        outputs: list = [
            self.run_tiled(one, with_scores=with_scores) if isinstance(one, Tiled) else None for one in tensors
        ]
        whole = [i for i, one in enumerate(tensors) if not isinstance(one, Tiled)]
        for shape in dict.fromkeys(tensors[i].shape for i in whole):
            members = [i for i in whole if tensors[i].shape == shape]
            result = self.run(np.stack([tensors[i] for i in members]))
            for i, one in zip(members, result, strict=True):
                outputs[i] = one
        return outputs

    def benchmark(self, image, warmup: int = 5, repeats: int = 20, batch_size: int = 1) -> dict[str, float]:
        """Measures seconds per run of the backend (median, mean, p90, p99) and images per second (`ips`).

        Args:
            image: file or BGR array.
            warmup: number of untimed runs.
            repeats: number of timed runs.
            batch_size: copies of the image per run.

        Raises:
            UsageError: an argument is too small.
        """
        if warmup < 0 or repeats < 1 or batch_size < 1:
            raise UsageError(
                f"benchmark: needs warmup >= 0 and repeats, batch_size >= 1; got {warmup, repeats, batch_size}"
            )
        tensor, _ = self.preprocess(image)
        if isinstance(tensor, Tiled):
            height, width = self.files.fixed_size
            tensor, _ = self.prepare(tensor.rows.read(0, height)[:, :width], "part of the image")
        batch = np.stack([tensor] * batch_size)
        seconds = seconds_of_runs(lambda: self.run(batch), warmup=warmup, repeats=repeats)
        median = float(np.median(seconds))
        return {
            "median": median,
            "mean": float(np.mean(seconds)),
            "p90": float(np.percentile(seconds, 90)),
            "p99": float(np.percentile(seconds, 99)),
            "ips": batch_size / median,
        }
