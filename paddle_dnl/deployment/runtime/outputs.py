# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of infer.py: pictures with relative names, or the frames of a video or camera."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from paddle_dnl.data.classes import Colors
from paddle_dnl.data.images.geo_files import save_geotiff
from paddle_dnl.data.images.image_files import EXTENSIONS, all_names_differ, iter_results, require_outside
from paddle_dnl.data.images.pending_images import PendingImages
from paddle_dnl.data.images.strip_results import StripResults
from paddle_dnl.data.images.video_files import Video
from paddle_dnl.data.images.video_writer import VideoWriter
from paddle_dnl.data.overlay import overlay, save_image, save_label_png
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.deployment.runtime.pipeline import Picture, read_ahead
from paddle_dnl.deployment.runtime.preview import Preview
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger

import numpy as np

OVERLAYS, PROBABILITIES, GEOTIFFS = "added_prediction", "probabilities", "geotiff"
# Number of frames decoded ahead.
_FRAMES_AHEAD = 4


@dataclass(frozen=True)
class Results:
    """Options of the output files of pictures and videos.

    Attributes:
        folder: output folder.
        colors: colors of the classes.
        details: whether each written picture is logged.
        inputs: files that the program reads; output files must not replace them.
    """

    folder: Path
    colors: Colors
    details: bool
    inputs: Sequence[str | Path]


class PictureJob:
    """Input pictures and their output files: a label picture and an overlay per picture.

    Output files have the picture's name, with its sub-folder where two pictures have the same name.

    Args:
        path: an image, a folder, a .txt list or a glob pattern.
        to: options of the output files.
        endings: file name extensions of pictures in folders.
        save_prob: `float16` or `uint8`: also write `probabilities/NAME.npz`; None: do not.
        with_overlays: whether overlays are written.
        with_geotiff: also write `geotiff/NAME.tif`, the class numbers with the georeference of the input GeoTIFF.
        which: `shard` and `skip_existing` of `PendingImages`.

    Raises:
        DataError: no picture found, or two pictures with the same output name.
        OutputError: an output file would replace an input or a file that this package did not write.
        UsageError: a folder of pictures has the name of an output folder, or the output folder lies inside of `path`.
    """

    writers = 2

    def __init__(
        self,
        path: str,
        to: Results,
        endings: tuple[str, ...] = EXTENSIONS,
        save_prob: str | None = None,
        with_overlays: bool = True,
        with_geotiff: bool = False,
        **which,
    ):
        self._path, self._to = path, to
        self._save_prob, self._with_overlays, self._with_geotiff = save_prob, with_overlays, with_geotiff
        require_outside(to.folder, path)
        is_flat = all_names_differ(path, endings)
        self._images = PendingImages(
            lambda: iter_results(path, endings, is_flat), self._files, [*to.inputs, path], to.folder, **which
        )

    def _results(self, name: Path) -> dict[str, Path]:
        """Returns output folder -> file. The label picture (key "") is last; it marks the outputs as complete."""
        if name.parts[0] in (OVERLAYS, PROBABILITIES, GEOTIFFS) and len(name.parts) > 1:
            raise UsageError(
                f"--image_path {self._path}: its folder {name.parts[0]} has the name of an output folder; rename it, or give a "
                "list or the folders of the pictures one by one"
            )
        endings = {PROBABILITIES: self._save_prob and ".npz", OVERLAYS: self._with_overlays and ".png"}
        endings |= {GEOTIFFS: self._with_geotiff and ".tif", "": ".png"}
        return {folder: self._to.folder / folder / name.with_suffix(end) for folder, end in endings.items() if end}

    def _files(self, name: Path) -> list[Path]:
        return list(self._results(name).values())

    def __len__(self) -> int:
        return len(self._images)

    def pictures(self) -> Iterator[Picture]:
        """Iterates over all pictures in order."""
        wants = self._with_geotiff
        return (Picture(str(path), path, name.with_suffix(".png"), wants) for path, name in self._images)

    def examples(self, count: int) -> list:
        """Returns the first `count` pictures in the form that `Predictor.predict` accepts."""
        return [path for path, _ in islice(self._images, count)]

    def write(self, picture: Picture, pixels: np.ndarray, label: np.ndarray, probabilities: np.ndarray | None) -> None:
        """Writes the output files of one picture."""
        files = self._results(picture.name)
        if PROBABILITIES in files:
            write_bytes(files[PROBABILITIES], probability_file(probabilities, self._save_prob))
        if OVERLAYS in files:
            save_image(files[OVERLAYS], overlay(pixels, label, self._to.colors))
        if GEOTIFFS in files:
            save_geotiff(files[GEOTIFFS], label, self._to.colors, picture.place)
        save_label_png(files[""], label, self._to.colors)
        self._tell(picture, files[""])

    def write_strips(self, picture: Picture, rows, strips: Iterator[np.ndarray]) -> None:
        """Writes the output files of a large picture strip by strip.

        Args:
            picture: the picture.
            rows: its pixels, readable by rows.
            strips: its classes `[rows, W]` from top to bottom.
        """
        files = self._results(picture.name)
        names = files[""], files.get(OVERLAYS), files.get(GEOTIFFS)
        with StripResults(rows.size, self._to.colors, *names, picture.place) as written:
            for labels in strips:
                written.write(rows, labels)
            written.commit()
        self._tell(picture, files[""])

    def _tell(self, picture: Picture, target: Path) -> None:
        if self._to.details:
            logger.info(f"{picture.title} -> {target}")

    def unreadable(self, error: DataError) -> None:
        """Counts and logs a picture that cannot be read and is skipped."""
        self._images.skip(error)

    def require_some(self) -> None:
        """Logs the number of skipped pictures at the end; raises an error if all were skipped."""
        self._images.require_some()

    def close(self) -> None:
        """Does nothing; `VideoJob.close` completes its files."""


class VideoJob:
    """A video or camera as input; the output is an overlay video, or numbered label pictures and overlays.

    Args:
        path: a video file, or the number of a camera.
        to: options of the output files.
        as_frames: write numbered pictures instead of a video.
        limit: maximum number of frames; None: all.
        stride: use every `stride`-th frame; the written video has the duration of the source.
        preview: port of a live preview, see `paddle_dnl.deployment.runtime.preview`; None: no preview.

    Raises:
        OutputError: the overlay video would replace an input or a file that this package did not write. For frames,
            whose number is unknown, the error is raised when they are written.
        DataError: the video or camera cannot be opened.
    """

    # Frames of a video must be written in order.
    writers = 1

    def __init__(
        self, path: str, to: Results, as_frames: bool, limit: int | None, stride: int = 1, preview: int | None = None
    ):
        self._path, self._to, self._limit, self._stride = path, to, limit, stride
        self._video = Video(path)
        self.is_camera = self._video.is_camera
        self.target = to.folder / self._video.name if as_frames else to.folder / OVERLAYS / f"{self._video.name}.mp4"
        check_outputs([] if as_frames else [self.target], [path, *to.inputs], root=to.folder)
        self._writer = None if as_frames else VideoWriter(self.target, self._video.rate / stride)
        self._preview = None if preview is None else Preview(preview)

    def pictures(self) -> Iterator[Picture]:
        """Iterates over the frames; up to `_FRAMES_AHEAD` of them are decoded ahead."""
        frames = read_ahead(self._video.frames(self._limit, self._stride), _FRAMES_AHEAD)
        for number, frame in zip(count(0, self._stride), frames, strict=False):
            yield Picture(f"{self._video.title} frame {number}", frame, Path(self._video.name) / f"{number:06d}.png")

    def examples(self, count: int) -> list:
        """Returns the first `count` frames; a video file is opened a second time for this."""
        video = self._video if self.is_camera else Video(self._path)
        found = list(video.frames(count if self._limit is None else min(count, self._limit)))
        if video is not self._video:
            video.close()
        return found

    def write(self, picture: Picture, pixels: np.ndarray, label: np.ndarray, probabilities: None = None) -> None:
        """Writes the output files of one frame."""
        mixed = overlay(pixels, label, self._to.colors)
        if self._preview is not None:
            self._preview.show(mixed)
        if self._writer is not None:
            self._writer.write(mixed)
            return
        save_label_png(self._to.folder / picture.name, label, self._to.colors)
        save_image(self._to.folder / OVERLAYS / picture.name, mixed)
        if self._to.details:
            logger.info(f"{picture.title} -> {self._to.folder / picture.name}")

    def close(self) -> None:
        """Completes the output video with the frames written so far, and closes the source."""
        self._video.close()
        if self._preview is not None:
            self._preview.close()
        if self._writer is not None:
            self._writer.close()
