# SPDX-License-Identifier: Apache-2.0
"""`DeployConfig`: the files of an exported model and the settings in its deploy.yaml."""

from dataclasses import dataclass, field
from pathlib import Path

from paddle_dnl.data.classes import ClassInfo
from paddle_dnl.data.transforms.sample import MAX_PIXELS
from paddle_dnl.errors import ConfigError, ExportError
from paddle_dnl.files.reading import file_digest

FILE_NAME = "deploy.yaml"
ONNX_NAME = "model.onnx"
INT8_NAME = "model_int8.onnx"
FP16_NAME = "model_fp16.onnx"
ONNX_KEYS = ("onnx", "onnx_int8", "onnx_fp16")
_MAX_CHANNELS = 1024
_MAX_BYTES = 4 << 30  # hashing a sparse file of a terabyte would take an hour
OUTPUT_OPS = ("argmax", "softmax", "none")


@dataclass
class DeployConfig:
    """An exported model.

    Attributes:
        folder: folder that contains the files.
        model, params: file names of the graph and of the weights.
        transforms: preprocessing, as in a `val_dataset`.
        input_shape: [N, C, H, W]; -1 or None where the size is free.
        output_op: `argmax`, `softmax` or `none`.
        output_dtype: data type of the class numbers.
        classes: class names and colors; None in folders exported by PaddleSeg.
        verified: backend setting -> result of the comparison with the dynamic graph.
        sha256: file name -> digest; empty in folders exported by PaddleSeg.
        onnx, onnx_int8, onnx_fp16: file names of the ONNX models in float32, int8 and float16; None where missing.
        ignore_index: label that is excluded from the scores.
        label_map: list index: value in label files, item: class or `ignore_index`; None: label files contain classes.
        value_range: pixel values that are mapped to 0 and 255; None: the default scaling of 8 and 16 bits.
        name: file name of the description.
        components: user transform -> module that defines it and must be imported.
    """

    folder: Path
    model: str
    params: str
    transforms: list[dict] = field(default_factory=list)
    input_shape: list | None = None
    output_op: str = "argmax"
    output_dtype: str = "int32"
    classes: ClassInfo | None = None
    verified: dict = field(default_factory=dict)
    sha256: dict = field(default_factory=dict)
    onnx: str | None = None
    onnx_int8: str | None = None
    onnx_fp16: str | None = None
    ignore_index: int = 255
    label_map: list[int] | None = None
    value_range: tuple[float, float] | None = None
    name: str = FILE_NAME
    components: dict = field(default_factory=dict)

    @property
    def model_path(self) -> Path:
        """Path of the graph."""
        return self.folder / self.model

    @property
    def params_path(self) -> Path:
        """Path of the weights."""
        return self.folder / self.params

    @property
    def file_names(self) -> list[str]:
        """Names of the graph, the weights and the existing ONNX files."""
        return [name for name in (self.model, self.params, *(getattr(self, key) for key in ONNX_KEYS)) if name]

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) of the input; None if it is free."""
        if not self.input_shape or any(not isinstance(v, int) or v < 0 for v in self.input_shape[2:]):
            return None
        return tuple(self.input_shape[2:])

    @property
    def img_channels(self) -> int:
        """Number of channels of the pictures; `ImageFormat.of` reads it and `value_range`."""
        channels = self.input_shape[1] if self.input_shape else 3
        return channels if isinstance(channels, int) and channels > 0 else 3

    @property
    def fixed_batch(self) -> int | None:
        """Batch size; None if it is free."""
        batch = self.input_shape[0] if self.input_shape else None
        return batch if isinstance(batch, int) and batch > 0 else None

    def onnx_of(self, precision: str) -> str | None:
        """File name of the ONNX model for a precision, or None."""
        return {"int8": self.onnx_int8, "fp16": self.onnx_fp16}.get(precision, self.onnx)

    def require_onnx(self, precision: str, backend: str) -> Path:
        """Path of the ONNX model for a precision.

        Args:
            precision: see `BackendOptions`.
            backend: backend's name, for the error message.

        Raises:
            ExportError: the folder has no such file.
        """
        name = self.onnx_of(precision)
        if precision == "int8" and not name:
            raise ExportError(f"{self.folder}: has no int8 model; make one with tools/quantize.py")
        if precision == "fp16" and not name:
            raise ExportError(f"{self.folder}: has no float16 model; export it with --format onnx --fp16")
        path = self.folder / (name or ONNX_NAME)
        if not path.is_file():
            raise ExportError(f"{path}: missing; the backend {backend} needs it (export.py --format onnx makes it)")
        return path

    def hash_files(self) -> None:
        """Records the SHA-256 of graphs and weights."""
        self.sha256 = {name: file_digest(self.folder / name) for name in self.file_names}

    def check_files(self, *names: str) -> None:
        """Compares files with their recorded digests, because a damaged graph can crash the native parser.

        Raises:
            ExportError: a file is missing, too large, or differs from the exported one.
        """
        for name in names:
            path = self.folder / name
            if not path.is_file():
                raise ExportError(f"{path}: missing; export the model again")
            if path.stat().st_size > _MAX_BYTES:
                raise ExportError(f"{path}: is larger than {_MAX_BYTES >> 30} GiB; exported models are smaller")
            if name in self.sha256 and file_digest(path) != self.sha256[name]:
                raise ExportError(
                    f"{path}: damaged or replaced since the export (its SHA-256 is not the one in {FILE_NAME}); "
                    "copy or export it again"
                )


def require_input_size(shape: list, where: str) -> None:
    """Refuses an input that does not fit into memory, before a backend allocates it.

    Args:
        shape: [N, C, H, W]; None or -1 where free.
        where: start of the message: file and key, or flag.

    Raises:
        ConfigError: more than `MAX_PIXELS` pixels per batch, or more than 1024 channels.
    """
    batch, channels, height, width = (max(size or 1, 1) for size in shape)
    if batch * height * width > MAX_PIXELS or channels > _MAX_CHANNELS:
        raise ConfigError(
            f"{where}: {shape} is too large; a batch has at most {MAX_PIXELS} pixels and {_MAX_CHANNELS} channels"
        )
