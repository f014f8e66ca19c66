# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity at step 7, in every place: named before they reach a weight or a file; the checkpoint before is whole."""

import itertools
import math
import re

from paddle_dnl.errors import CheckpointError, DataError, NonFiniteError
from paddle_dnl.training.checkpoints import checkpoint
from paddle_dnl.training.sampling import PositionSampler
from paddle_dnl.weights.safe_pickle import read_pickle

import numpy as np
import paddle
import pytest
import tiny_training
from faulty_training import pretend_gpu
from launching import Started, training_words
from recording import RecordingTrainer, make_config, record

VALUES = [math.nan, math.inf, -math.inf]
AT = 7


def _spoil(tensor, value):
    """One element among many."""
    array = tensor.numpy().copy()
    array.reshape(-1)[-1] = value
    tensor.set_value(array)


class _Faulty(RecordingTrainer):
    """Puts `value` into `place` at step 7."""

    place, value = "", math.nan
    before = None

    def _spoil_here(self, place):
        return place == self.place and self.state.iteration == AT

    def step(self, batches):
        if self.state.iteration == AT:
            self.before = {key: tensor.numpy().copy() for key, tensor in self.model.state_dict().items()}
        if self._spoil_here("weight"):
            _spoil(self.model.cls.weight, self.value)
        if self._spoil_here("statistic"):
            _spoil(self.model.conv[1]._mean, self.value)
        if self._spoil_here("slot"):
            slots = self.optimizer.state_dict()
            _spoil(next(slot for name, slot in slots.items() if "moment2" in name), math.inf)
        if self._spoil_here("average"):
            _spoil(self.ema.model.cls.weight, self.value)
        return super().step(batches)

    def _backward(self, data):
        if self._spoil_here("loss"):
            self.losses = _Spoilt(self.losses, 0, self.value)
        if self._spoil_here("head"):
            self.losses = _Spoilt(self.losses, 1, self.value)
        losses = super()._backward(data)
        if self._spoil_here("gradient"):
            _spoil(self.model.aux.weight.grad, self.value)
        return losses


class _Spoilt:
    def __init__(self, losses, index, value):
        self.losses, self.index, self.value = losses, index, value

    def __call__(self, *args):
        found = self.losses(*args)
        name, loss = found[self.index]
        found[self.index] = (name, loss * self.value)
        return found


# Place and what its message holds beside the step.
PLACES = {
    "loss": r"CrossEntropyLoss_0 = (nan|-?inf)",
    "head": r"CrossEntropyLoss_1 = (nan|-?inf)",
    "weight": r"the weights cls\.weight hold NaN or infinity",
    "gradient": r"the gradient of aux\.weight is NaN or infinite; the weights were not changed",
}


def _stopped(tmp_path, monkeypatch, place, value, **options):
    """Trains into the fault; returns the message. Nothing newer than iter_5 may be there, and that must be whole."""
    config = make_config(tmp_path)
    trainers = []

    class Faulty(_Faulty):
        def __init__(self, *args, **kwargs):
            trainers.append(self)
            super().__init__(*args, **kwargs)

    Faulty.place, Faulty.value = place, value
    monkeypatch.setattr("recording.RecordingTrainer", Faulty)
    with pytest.raises(NonFiniteError) as error:
        record(config, tmp_path / "output", do_eval=False, **options)
    assert [path.name for path in (tmp_path / "output").glob("iter_*")] == ["iter_5"]
    assert checkpoint.verify(tmp_path / "output" / "iter_5")["iteration"] == 5
    assert all(np.isfinite(value).all() for value in tiny_training.weights(tmp_path / "output" / "iter_5").values())
    return str(error.value), trainers[0]


@pytest.mark.parametrize(
    "place, value, scaling",
    # With scaling a bad gradient is skipped and does not stop: see below.
    [c for c in itertools.product(PLACES, VALUES[:2], (False, True)) if (c[0], c[2]) != ("gradient", True)],
)
def test_the_run_stops_and_names_it(tmp_path, monkeypatch, place, value, scaling):
    options = {}
    if scaling:
        pretend_gpu(monkeypatch.setattr)
        options["precision"] = "fp16"
    text, trainer = _stopped(tmp_path, monkeypatch, place, value, **options)
    assert text.startswith("iter 7: ") and re.search(PLACES[place], text), text
    assert f"Last good checkpoint: {tmp_path / 'output' / 'iter_5'}" in text
    for key, tensor in trainer.model.state_dict().items():
        if "_mean" not in key and "_variance" not in key and place != "weight":
            np.testing.assert_array_equal(tensor.numpy(), trainer.before[key], err_msg=key)


@pytest.mark.parametrize(
    "place, named", [("statistic", "conv.1._mean"), ("slot", "optimizer slot"), ("average", "average of cls.weight")]
)
def test_what_no_loss_shows_is_found_before_it_is_saved(tmp_path, monkeypatch, place, named):
    """Statistics are not used in training, an infinite second moment stops a weight, and the average is used by none."""
    text, _ = _stopped(tmp_path, monkeypatch, place, math.nan, use_ema=True)
    assert text.startswith(f"iter 10: {named}") and "was not written" in text, text


@pytest.mark.parametrize("value", VALUES)
def test_loss_scaling_skips_a_bad_gradient(tmp_path, monkeypatch, value):
    pretend_gpu(monkeypatch.setattr)

    class Faulty(_Faulty):
        place = "gradient"

        def step(self, batches):
            losses = super().step(batches)
            if self.state.iteration == AT:
                for key, tensor in self.model.state_dict().items():
                    if "_mean" not in key and "_variance" not in key:
                        np.testing.assert_array_equal(tensor.numpy(), self.before[key], err_msg=key)
            return losses

    Faulty.value = value
    monkeypatch.setattr("recording.RecordingTrainer", Faulty)
    steps = record(make_config(tmp_path), tmp_path / "output", precision="fp16", do_eval=False)
    assert len(steps) == 10
    states = read_pickle(tmp_path / "output" / "iter_10" / "model.pdstates")
    assert states["scaler"]["scale"] == [2.0**14]


def test_scaling_that_never_helps_stops(tmp_path, monkeypatch):
    """Without this a training would skip every step to its end."""
    pretend_gpu(monkeypatch.setattr)
    config = make_config(tmp_path, ["iters=60"])
    with pytest.raises(
        NonFiniteError, match=r"iter 21: the gradient of cls\.weight is NaN or infinite at a loss scale of 1"
    ):
        record(config, tmp_path / "output", precision="fp16", do_eval=False, overflow_at=range(6, 100))
    assert checkpoint.find_resume("auto", tmp_path / "output").name == "iter_20"


def test_accumulated_batches_are_named_by_their_own_files(tmp_path, monkeypatch):
    class Faulty(_Faulty):
        def _backward(self, data):
            if self.state.iteration == AT and len(self.fed) == 1:
                self.losses = _Spoilt(self.losses, 0, math.nan)
            return super()._backward(data)

    monkeypatch.setattr("recording.RecordingTrainer", Faulty)
    config = make_config(tmp_path, ["grad_accum_iters=2"])
    with pytest.raises(NonFiniteError) as error:
        record(config, tmp_path / "output", do_eval=False)
    batch = list(PositionSampler(8, 2, 20, seed=7))[2 * (AT - 1) + 1]
    files = re.findall(r"image_(\d)\.png", str(error.value))
    assert [int(number) for number in files] == [index for index, _ in batch]


class _OneBadImage(paddle.io.Dataset):
    def __init__(self, dataset, value):
        super().__init__()
        self.dataset, self.value, self.file_list = dataset, value, dataset.file_list

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        sample = self.dataset[index]
        if index == 3:
            sample["img"][2, 3, 4] = self.value
        return sample


@pytest.mark.parametrize(
    "value, workers, precision", [(math.nan, 0, "fp32"), (-math.inf, 2, "fp16"), (math.inf, 0, "fp16")]
)
def test_input_is_named_before_the_network_sees_it(tmp_path, monkeypatch, value, workers, precision):
    """Its ReLU makes zeros of NaN: the loss stays finite while batch statistics are spoilt for good."""
    pretend_gpu(monkeypatch.setattr)

    class Faulty(RecordingTrainer):
        def _build_data(self):
            super()._build_data()
            self.train_dataset = _OneBadImage(self.train_dataset, value)

        def _backward(self, data):
            assert np.isfinite(np.asarray(data["img"])).all()
            return super()._backward(data)

    monkeypatch.setattr("recording.RecordingTrainer", Faulty)
    options = {"precision": precision, "num_workers": workers, "save_interval": 1, "do_eval": False}
    with pytest.raises(DataError, match=r"image_3\.png: the network's input made from it holds NaN or infinity"):
        record(make_config(tmp_path), tmp_path / "output", **options)
    for folder in (tmp_path / "output").glob("iter_*"):
        assert all(np.isfinite(array).all() for array in tiny_training.weights(folder).values())


def test_a_file_with_nan_is_refused_at_the_start(tmp_path):
    config = make_config(tmp_path)
    record(config, tmp_path / "output")
    folder = tmp_path / "output" / "iter_5"
    state = paddle.load(str(folder / "model.pdparams"))
    state["cls.bias"] = paddle.full([3], float("nan"))
    paddle.save(state, str(folder / "model.pdparams"))
    for name in ("manifest.json", "model.pdstates", "config.yml"):  # as PaddleSeg writes it, without checksums
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"1 tensors hold NaN or infinity \(cls\.bias\)"):
        record(config, tmp_path / "more", resume_model=str(folder))


@pytest.mark.slow
def test_two_ranks_stop_with_one_message(tmp_path):
    """The loss of one rank only: the other, whose loss is good, says the same and does not save."""
    make_config(tmp_path)
    words = training_words(tmp_path, [{"kind": "nan_loss", "rank": 1, "at": AT}], iters=12, save_interval=5)
    started = Started("faulty_training.py", words, tmp_path, ranks=2)
    assert started.wait(120) != 0
    started.require_nothing_left()
    found = re.findall(r"Error \(rank (\d)\): (iter 7: .*)", started.text())
    assert {rank for rank, _ in found} == {"0", "1"} and len({text for _, text in found}) == 1, started.text()[-3000:]
    assert re.search(
        r"CrossEntropyLoss_1 = nan in the batch of .* on rank 1\. Last good checkpoint: .*iter_5", found[0][1]
    )
