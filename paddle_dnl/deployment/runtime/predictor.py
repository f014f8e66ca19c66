# SPDX-License-Identifier: Apache-2.0
"""`Predictor`: an exported folder as an object that turns pictures into label maps."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.overlay import as_label
from paddle_dnl.data.reading import decode_image, read_image
from paddle_dnl.data.tiling import TileGrid
from paddle_dnl.data.transforms import Compose
from paddle_dnl.deployment.runtime.backend_factory import make_engine
from paddle_dnl.deployment.runtime.backends import EngineOptions
from paddle_dnl.deployment.runtime.deploy_config import read_deploy_config
from paddle_dnl.errors import ConfigError, DataError, UsageError
from paddle_dnl.log import logger
from paddle_dnl.profile.measuring import seconds_of_runs

import cv2
import numpy as np

WRONG_SIZES = (None, "resize", "refuse")
TILES = ("auto", "never")
# A picture that is larger than the model's input by more than this, along a side, is worked through in tiles.
TILED_FROM = 1.5
# 8K video has 33 million, a large camera 60; what is larger is more often an attack or a mistake than a picture.
MAX_PIXELS = 80_000_000


@dataclass
class Tiled:
    """A picture, uint8 BGR `[H, W, 3]` or grey `[H, W]`, that is too large for the model and is worked through in tiles."""

    pixels: np.ndarray


class Predictor:
    """Runs an exported model on pictures.

        predictor = Predictor("output/inference_model")
        labels = predictor.predict(["street.png"])  # one uint8 [H, W] per picture

    Args:
        folder: an exported folder or its deploy.yaml.
        engine: `paddle`, `onnxruntime` or `auto`; or an engine that runs already, such as an `EngineProcess`.
        wrong_size: pictures of another size than a fixed-size model takes: `resize` or `refuse`; None resizes, too, but
            leaves those that are more than 1.5 times as large to `tile`.
        tile: `auto`: such pictures are worked through in overlapping tiles of the model's size, at their own resolution;
            needs Deploy.transforms that keep the size. `never`: they are resized, which loses their details.
        tile_overlap: share of a tile that it has in common with its neighbour, 0 to 0.5.
        max_pixels: larger picture files are refused before they are decoded; None allows all.
        options: of a named engine, fields of `paddle_dnl.deployment.runtime.backends.EngineOptions`, such as `device`.

    Attributes:
        files: what deploy.yaml says.
        classes: names and colours, None in folders that PaddleSeg exported.
        channels: of the pictures, 3 or 1.

    Raises:
        ConfigError: deploy.yaml is missing or wrong.
        ExportError: files are missing or cannot be loaded.
        UsageError: a device, engine or setting that cannot be used.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        engine="paddle",
        wrong_size: str | None = None,
        tile: str = "auto",
        tile_overlap: float = 0.25,
        max_pixels: int | None = MAX_PIXELS,
        **options,
    ):
        if wrong_size not in WRONG_SIZES:
            raise UsageError(f"wrong_size {wrong_size!r} is not one of {', '.join(WRONG_SIZES[1:])}")
        if tile not in TILES:
            raise UsageError(f"tile {tile!r} is not one of {', '.join(TILES)}")
        if not 0 <= tile_overlap <= 0.5:
            raise UsageError(f"tile_overlap must be from 0 to 0.5, got {tile_overlap}")
        self._wrong_size, self._max_pixels = wrong_size, max_pixels
        self._tile_overlap = tile_overlap
        self.files = read_deploy_config(folder)
        self.classes = self.files.classes
        channels = self.files.input_shape[1] if self.files.input_shape else 3
        self.channels = channels if channels in (1, 3) else 3
        try:
            steps = [registry.build(step, "transform", "Deploy.transforms") for step in self.files.transforms]
        except ConfigError as error:
            raise ConfigError(f"{self.files.folder / 'deploy.yaml'}: {error}") from error
        self._compose = Compose(steps, img_channels=self.channels)
        self._tiles = tile == "auto" and wrong_size is None and self._keeps_size()
        self._engine = make_engine(engine, self.files, EngineOptions(**options)) if isinstance(engine, str) else engine

    def read(self, path: str | Path) -> np.ndarray:
        """A picture file as the array that `preprocess` takes, uint8 BGR `[H, W, 3]` (`[H, W]` for grey models).

        Raises:
            DataError: missing, empty, damaged, cut off, no picture, or larger than `max_pixels`.
        """
        return read_image(path, self.channels, max_pixels=self._max_pixels, whole=True)

    def decode(self, content: bytes, name: str = "picture") -> np.ndarray:
        """`read` for the content of a file, at least one byte, which errors call `name`."""
        data = np.frombuffer(content, np.uint8)
        return decode_image(data, name, self.channels, max_pixels=self._max_pixels, whole=True)

    def _keeps_size(self) -> bool:
        """Whether Deploy.transforms leave a picture that is larger than the model as large as it is."""
        if self.files.fixed_size is None:
            return False
        size = tuple(2 * side for side in self.files.fixed_size)
        try:
            tensor = self._compose({"img": np.zeros((*size, 3) if self.channels == 3 else size, np.uint8)})["img"]
        except (ValueError, TypeError, DataError, cv2.error):
            return False
        return tensor.shape[1:] == size

    def _is_large(self, height: int, width: int) -> bool:
        size = self.files.fixed_size
        return size is not None and (height > TILED_FROM * size[0] or width > TILED_FROM * size[1])

    def preprocess(self, image: str | Path | np.ndarray, name: str | None = None) -> tuple["np.ndarray | Tiled", list]:
        """A picture, as file or BGR array, to network input `[3, H, W]` and the sizes it went through.

        One that will be worked through in tiles becomes a `Tiled`, for `run_each` or `run_tiled`. Errors call the picture
        `name`; by default a file by its path.
        """
        if isinstance(image, np.ndarray):
            name, pixels = name or "image array", self._check_array(image)
        else:
            name, pixels = name or image, self.read(image)
        if self._tiles and self._is_large(*pixels.shape[:2]):
            return Tiled(pixels), []
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
            info.append(("resize", tensor.shape[1:]))
            resized = cv2.resize(tensor.transpose(1, 2, 0), size[::-1], interpolation=cv2.INTER_LINEAR)
            tensor = resized.reshape(*size, -1).transpose(2, 0, 1)
        return np.ascontiguousarray(tensor, np.float32), info

    def _check_array(self, image: np.ndarray) -> np.ndarray:
        if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
            raise DataError(f"an image array must be [H, W, 3] (blue, green, red) or [H, W], got {list(image.shape)}")
        is_grey = image.ndim == 2 or image.shape[2] == 1
        if is_grey and self.channels == 3:
            return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        if not is_grey and self.channels == 1:
            raise DataError(f"this model reads grey images [H, W], got {list(image.shape)}")
        return image.reshape(image.shape[:2]) if is_grey else image

    @property
    def engine(self) -> str:
        """Name of the engine that runs."""
        return self._engine.name

    def close(self) -> None:
        """Ends the engine's process, where it has one of its own."""
        if hasattr(self._engine, "close"):
            self._engine.close()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """The graph's output for a batch `[N, 3, H, W]`; a smaller batch than the fixed one is filled up and cut back."""
        fixed = self.files.fixed_batch
        if fixed is None or len(batch) == fixed:
            return self._engine.run(batch)
        if len(batch) > fixed:
            return np.concatenate([self.run(batch[i : i + fixed]) for i in range(0, len(batch), fixed)])
        filled = np.concatenate([batch, np.repeat(batch[-1:], fixed - len(batch), axis=0)])
        return self._engine.run(filled)[: len(batch)]

    def postprocess(self, output: np.ndarray, info: list) -> np.ndarray:
        """One output, `[H, W]` classes or `[K, H, W]` scores, to classes of the picture's size: uint8, uint16 above 255."""
        is_scores = output.ndim == 3
        picture = output.transpose(1, 2, 0) if is_scores else as_label(output)
        for name, (height, width) in reversed(info):
            height, width = int(height), int(width)
            if name == "resize":
                method = cv2.INTER_LINEAR if is_scores else cv2.INTER_NEAREST
                resized = cv2.resize(picture, (width, height), interpolation=method)
                picture = resized.reshape(height, width, *picture.shape[2:])
            else:
                picture = picture[:height, :width]
        return as_label(picture.argmax(-1) if is_scores else picture)

    def predict(self, images: list, batch_size: int | None = None) -> list[np.ndarray]:
        """Classes of each picture, uint8 `[H, W]` at its own size.

        Args:
            images: files or BGR arrays `[H, W, 3]` uint8.
            batch_size: images per run; default the fixed batch of the export, else 1. Pictures that differ in size
                after preprocessing are run apart.

        Raises:
            DataError: a picture cannot be read.
            ExportError: the engine failed.
            UsageError: `images` is no list, or a batch size below 1.
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

    def run_tiled(self, picture: "Tiled", run=None) -> np.ndarray:
        """Classes `[H, W]` of a picture that is worked through in overlapping tiles.

        Memory beyond the picture and its classes: scores of one row of tiles, which grow with the picture's width.

        Args:
            picture: from `preprocess`.
            run: in place of `run`: batch `[N, C, h, w]` to output.
        """
        size, pixels, run = self.files.fixed_size, picture.pixels, run or self.run
        grid = TileGrid(pixels.shape[:2], size, tuple(int(self._tile_overlap * side) for side in size))
        batch_size = self.files.fixed_batch or 1

        def results(top: int):
            tensors = (self._compose({"img": tile})["img"] for tile in grid.row(top, lambda a, b: pixels[a:b]))
            while batch := list(itertools.islice(tensors, batch_size)):
                yield from run(np.stack(batch).astype(np.float32, copy=False))

        return np.concatenate(list(grid.labels(results)))

    def run_each(self, tensors: list) -> list[np.ndarray]:
        """The graph's output for each input `[3, H, W]`, inputs of one size as one batch; classes `[H, W]` of a `Tiled`."""
        outputs: list = [self.run_tiled(one) if isinstance(one, Tiled) else None for one in tensors]
        whole = [i for i, one in enumerate(tensors) if not isinstance(one, Tiled)]
        for shape in dict.fromkeys(tensors[i].shape for i in whole):
            members = [i for i in whole if tensors[i].shape == shape]
            result = self.run(np.stack([tensors[i] for i in members]))
            for i, one in zip(members, result, strict=True):
                outputs[i] = one
        return outputs

    def benchmark(self, image, warmup: int = 5, repeats: int = 20, batch_size: int = 1) -> dict[str, float]:
        """Seconds per run of the engine alone: median, mean, p90, p99; and images per second from the median.

        Args:
            image: file or BGR array.
            warmup: runs that are not timed.
            repeats: runs that are.
            batch_size: copies of the image per run.
        """
        if warmup < 0 or repeats < 1 or batch_size < 1:
            raise UsageError(
                f"benchmark: needs warmup >= 0 and repeats, batch_size >= 1; got {warmup, repeats, batch_size}"
            )
        tensor, _ = self.preprocess(image)
        if isinstance(tensor, Tiled):
            height, width = self.files.fixed_size
            tensor, _ = self.preprocess(tensor.pixels[:height, :width])
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
