# SPDX-License-Identifier: Apache-2.0
"""Inputs and results of infer.py: pictures with their relative names, or the frames of a video or camera."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from paddle_dnl.data.classes import Colors
from paddle_dnl.data.images.geo_files import save_geotiff
from paddle_dnl.data.images.image_files import EXTENSIONS, all_names_differ, iter_results
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
    """Options for the results of pictures and videos.

    Attributes:
        folder: of the results.
        colors: of the classes.
        details: log each picture that is written.
        inputs: files that the program reads, which no result may replace.
    """

    folder: Path
    colors: Colors
    details: bool
    inputs: Sequence[str | Path]


class PictureJob:
    """Files: each gives a label picture and an overlay under its name, with its sub-folder where two have the same name.

    Args:
        path: an image, a folder, a .txt list or a pattern.
        to: the results.
        endings: of pictures in folders.
        save_prob: `float16` or `uint8`: also `probabilities/NAME.npz`.
        with_overlays: whether overlays are written.
        with_geotiff: also `geotiff/NAME.tif`, class numbers where the picture, a GeoTIFF, lies.
        which: `shard` and `skip_existing` of `PendingImages`.

    Raises:
        DataError: nothing there, or two pictures with one name.
        OutputError: a result would replace an input, or a file that is not ours.
        UsageError: a folder of the overlays' name among the pictures.
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
        is_flat = all_names_differ(path, endings)
        self._images = PendingImages(
            lambda: iter_results(path, endings, is_flat), self._files, [*to.inputs, path], to.folder, **which
        )

    def _results(self, name: Path) -> dict[str, Path]:
        """Wanted results by folder; last, without a folder, the label picture, as the mark of a complete result."""
        if name.parts[0] in (OVERLAYS, PROBABILITIES, GEOTIFFS) and len(name.parts) > 1:
            raise UsageError(f"--image_path {self._path}: a folder {name.parts[0]} in it would mix with the results")
        endings = {PROBABILITIES: self._save_prob and ".npz", OVERLAYS: self._with_overlays and ".png"}
        endings |= {GEOTIFFS: self._with_geotiff and ".tif", "": ".png"}
        return {folder: self._to.folder / folder / name.with_suffix(end) for folder, end in endings.items() if end}

    def _files(self, name: Path) -> list[Path]:
        return list(self._results(name).values())

    def __len__(self) -> int:
        return len(self._images)

    def pictures(self) -> Iterator[Picture]:
        """All pictures, in order."""
        wants = self._with_geotiff
        return (Picture(str(path), path, name.with_suffix(".png"), wants) for path, name in self._images)

    def examples(self, count: int) -> list:
        """The first pictures, as `Predictor.predict` takes them."""
        return [path for path, _ in islice(self._images, count)]

    def write(self, picture: Picture, pixels: np.ndarray, label: np.ndarray, probabilities: np.ndarray | None) -> None:
        """Writes the results of one picture."""
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
        """Writes the results of a large picture, whose classes come in strips."""
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
        """Counts and logs an unusable picture, which is skipped."""
        self._images.skip(error)

    def require_some(self) -> None:
        """At the end: logs the number of skipped pictures; an error if no picture was usable."""
        self._images.require_some()

    def close(self) -> None:
        """Does nothing; a `VideoJob` closes its files here."""


class VideoJob:
    """A video or camera: an overlay video, or numbered label pictures and overlays.

    Args:
        path: a video file, or a camera's number.
        to: the results.
        as_frames: numbered pictures in place of a video.
        limit: stop after so many frames.
        stride: every so many frames one is used; the video that is written plays as long as the source.
        preview: port of a live preview, see `paddle_dnl.deployment.runtime.preview`; None without.

    Raises:
        OutputError: the overlay video would replace an input, or a file that is not ours. Of frames, whose number is not
            known, that is found when they are written.
        DataError: a video or camera that cannot be opened.
    """

    # Frames of a video are written in order.
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
        """The frames, some of which are decoded ahead."""
        frames = read_ahead(self._video.frames(self._limit, self._stride), _FRAMES_AHEAD)
        for number, frame in zip(count(0, self._stride), frames, strict=False):
            yield Picture(f"{self._video.title} frame {number}", frame, Path(self._video.name) / f"{number:06d}.png")

    def examples(self, count: int) -> list:
        """The first frames; a file is opened again for this."""
        video = self._video if self.is_camera else Video(self._path)
        found = list(video.frames(count if self._limit is None else min(count, self._limit)))
        if video is not self._video:
            video.close()
        return found

    def write(self, picture: Picture, pixels: np.ndarray, label: np.ndarray, probabilities: None = None) -> None:
        """Writes the results of one frame."""
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
        """Completes the written video with the frames so far, and closes the source."""
        self._video.close()
        if self._preview is not None:
            self._preview.close()
        if self._writer is not None:
            self._writer.close()
