# SPDX-License-Identifier: Apache-2.0
"""The trainer, in order of execution: build, resume, then loop { step, log, evaluate, save }."""

import contextlib
import math
from pathlib import Path

from paddle_dnl.data.loading import WorkerError, as_tensors, load_batches, stack_training
from paddle_dnl.distributed import collectives
from paddle_dnl.distributed.signals import StopSignal
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.log import logger
from paddle_dnl.models.start_weights import fetch_start_weights, load_start_weights
from paddle_dnl.profile.memory_plan import announce_evaluation
from paddle_dnl.startup import allocator
from paddle_dnl.training import amp, batch_scaling, nan_guard, preflight
from paddle_dnl.training.checkpoints import best_models, checkpoint, restoring
from paddle_dnl.training.checkpoints.background import CheckpointWriter
from paddle_dnl.training.checkpoints.run_folder import RunFolder
from paddle_dnl.training.checkpoints.snapshot import take_snapshot
from paddle_dnl.training.data_parallel import data_parallel
from paddle_dnl.training.ema import ModelEMA
from paddle_dnl.training.loss_window import Found, LossWindow, all_finite
from paddle_dnl.training.options import TrainOptions, TrainState
from paddle_dnl.training.parts import ConfiguredParts, ObjectParts
from paddle_dnl.training.records import loggers, published, recipe_changes
from paddle_dnl.training.records.logs import TrainLog
from paddle_dnl.training.records.preview import preview
from paddle_dnl.training.records.profiling import StepProfiler
from paddle_dnl.training.sampling import PositionedDataset, PositionSampler, dataset_fingerprint, seed_step
from paddle_dnl.training.worker_loss import save_and_explain

import numpy as np
import paddle


class Trainer:
    """One training run.

    Args:
        config: a `paddle_dnl.config.Config`, or `paddle_dnl.training.parts.ObjectParts`.
        options: see `TrainOptions`.
        parts: builds the components; by default `ConfiguredParts`.

    Raises:
        PaddleDnlError: unusable configuration, data, folder or checkpoint.
    """

    def __init__(self, config, options: TrainOptions, parts=None):
        self.config, self.options = config, options
        self.parts = parts or (config if isinstance(config, ObjectParts) else ConfiguredParts(config))
        collectives.initialise()
        batch_scaling.scale_rates(config, options.scale_lr)
        published.announce(config, options.precision)
        loggers.require_installed(options.all_loggers)
        self.state = TrainState()
        self.seed = options.seed
        if self.seed is None:  # random, and the same in every rank
            self.seed = collectives.broadcast_object(int(np.random.SeedSequence().entropy % 2**31))
        paddle.seed(self.seed)
        if options.resume_model is None:
            fetch_start_weights(config)  # before data are read, which may take minutes
        self._build_data()
        self.precision = amp.effective_precision(options.precision)
        self.model, self.losses, self.schedule, self.optimizer = self.parts.network(self.train_dataset)
        self.folder, self.has_other_schedule = None, False
        self.writer = CheckpointWriter(options.keep_checkpoint_max)
        try:
            self._open_folder()
            if self.resumed_from is None:  # a resumed run needs no start weights
                load_start_weights(self.model, fetch_start_weights(self.config))
            self._prepare_model()
            self._resume()
            preflight.check_model(self, self._evaluation_settings())
            if self.folder is not None:  # last, so that a refused run keeps the file of the previous run
                self.folder.write_config(self.config_text, self.config.files)
        except BaseException:  # else an exception that a notebook keeps would keep the folder locked
            self.close()
            raise

    # ------------------------------------------------------------------------------------------ build

    def _build_data(self) -> None:
        config = self.config
        self.train_dataset, self.val_dataset = self.parts.datasets(self.options.do_eval)
        preflight.check_data(self.train_dataset, self.val_dataset, self.options)
        self.fingerprint = dataset_fingerprint(self.train_dataset)  # once: of a million files it takes seconds
        self.accumulate = config.dic.get("grad_accum_iters", 1)
        self.sampler = PositionSampler(
            len(self.train_dataset) * self.options.repeats,
            config.batch_size,
            config.iters * self.accumulate,
            seed=self.seed,
            rank=collectives.rank(),
            world_size=collectives.world_size(),
        )

    def _prepare_model(self) -> None:
        options = self.options
        if self.precision != "fp32":
            logger.info(f"AMP in {self.precision}, level {options.amp_level}")
            if options.amp_level == "O2":
                self.model, self.optimizer = amp.decorate(self.model, self.optimizer, self.precision)
        amp.set_data_format(self.model, options.data_format, self.precision, options.to_static_training)
        self.scaler = amp.make_scaler(self.precision)
        self.ema = ModelEMA(self.model, self.config.dic.get("ema_decay", 0.999)) if options.use_ema else None
        self.forward = self.model
        if options.to_static_training:
            self.forward = paddle.jit.to_static(self.model)
        if collectives.world_size() > 1:
            self.forward = data_parallel(self.forward, self)

    def _open_folder(self) -> None:
        """Makes, locks and tidies the output folder, then chooses the checkpoint to resume."""
        options = self.options
        self.save_dir = Path(options.save_dir)
        chosen = None
        if collectives.is_main():
            self.folder = RunFolder(self.save_dir)
            self.writer.folder = self.folder
            self.config_text = self.config.dump()
            chosen = checkpoint.find_resume(options.resume_model, self.save_dir)
            checkpoint.require_free_names(self.save_dir, chosen, best_models.NAMES if options.do_eval else ())
            if chosen is not None:
                self.has_other_schedule = recipe_changes.review(chosen, self.config.dic, options.allow_recipe_changes)
        # Rank 0 chooses for all, since ranks with local disks may have different checkpoints or none.
        self.resumed_from = collectives.broadcast_object(chosen)
        if options.resume_model == "auto":
            restoring.compare_hosts(chosen, self.save_dir)
        # Checkpoints that this run wrote or began with, oldest first.
        self.saved = [] if self.resumed_from is None else [self.resumed_from]

    def close(self) -> None:
        """Ends the writing of checkpoints and releases the lock of the folder."""
        if self.folder is not None:
            self.writer.close()
            self.folder.close()

    # ------------------------------------------------------------------------------------------ resume

    def _layout(self) -> dict:
        """Values that must be equal for a resumed run to continue the first one exactly."""
        return {
            "seed": self.seed,
            "batch_size": self.config.batch_size,
            "world_size": collectives.world_size(),
            "grad_accum_iters": self.accumulate,
            "train_images": len(self.train_dataset) * self.options.repeats,
            "train_files": self.fingerprint,
            "precision": self.precision,
        }

    def _resume(self) -> None:
        folder = self.resumed_from
        if folder is None:
            if collectives.is_main() and checkpoint.iteration_folders(self.save_dir):
                logger.warning(f"{self.save_dir} holds checkpoints of an earlier run; --resume_model auto continues it")
            return
        states = self._restore(folder)
        state = TrainState(**{k: v for k, v in states.items() if k in TrainState.__dataclass_fields__})
        recipe_changes.require_remaining(folder, state.iteration, self.config.iters)
        if collectives.is_main():
            best_models.carry_over(folder, self.save_dir, state)
        self.state = collectives.broadcast_object(state)
        self.scaler.load_state_dict(self.state.scaler or {})
        before = self.state.layout
        if self.options.seed is None and "seed" in before:
            self.seed = self.sampler.seed = before["seed"]
        changed = [f"{k} {before[k]} -> {v}" for k, v in self._layout().items() if k in before and before[k] != v]
        if changed:
            logger.warning(f"resuming with {', '.join(changed)}: the samples will not be those of an uninterrupted run")
            explained = batch_scaling.explain_change(
                before, self._layout(), self.config, self.options.scale_lr is not None
            )
            if explained:
                logger.warning(explained)
        self.sampler.first_step = self.state.iteration * self.accumulate
        logger.info(f"resumed from {folder} at iter {self.state.iteration}")

    def _restore(self, folder: Path) -> dict:
        """Loads a checkpoint, which rank 0 reads for all since others may not have it; returns its plain states."""
        into = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema.model if self.ema else None}
        wanted = {"with_average": self.ema is not None, "fresh_optimizer": self.options.fresh_optimizer}
        contents = None
        if collectives.is_main():
            contents = restoring.read(folder, optimizer=self.optimizer, **wanted)
            contents.has_other_schedule = self.has_other_schedule
            states = restoring.restore(contents, **into)  # first, so that only rank 0 reports what does not fit
        contents = collectives.broadcast_arrays(contents, "reading the checkpoint")
        return states if collectives.is_main() else restoring.restore(contents, **into)

    # ------------------------------------------------------------------------------------------ loop

    def run(self) -> TrainState:
        """Trains to the end of the schedule, an early stop or a signal; returns the final state."""
        options, state, iters = self.options, self.state, self.config.iters
        self.log = TrainLog(
            iters=iters,
            log_iters=options.log_iters,
            steps_per_epoch=max(1, self.sampler.steps_per_epoch // self.accumulate),
            batch_size=self.config.batch_size * self.accumulate,
            save_dir=self.save_dir,
            loggers=options.all_loggers,
            first_iteration=state.iteration + 1,
            config=self.config.dic,
            print_mem_info=options.print_mem_info,
        )
        logger.info(f"training {state.iteration} -> {iters} iters, seed {self.seed}, output in {self.save_dir}")
        # The hooks of the memory estimate need plain layers.
        is_plain = not options.to_static_training and options.amp_level != "O2"
        if self.val_dataset is not None and collectives.is_main() and is_plain:
            announce_evaluation(self.model, self.val_dataset, self.config.test_config_while_training)
        # One loader for the whole run: its workers are started once and read ahead across epochs.
        dataset = PositionedDataset(self.train_dataset, self.seed)
        batches = load_batches(dataset, self.sampler, stack_training, options.num_workers, dataset.may_read_ahead)
        self.window = LossWindow(self.accumulate)
        self.stop = StopSignal()
        profiler = StepProfiler(options.profiler_options, self.save_dir)
        limit = math.inf if options.early_stop_intervals is None else options.early_stop_intervals
        try:
            self.model.train()
            interrupted = state.evaluation_due and self._evaluate_and_save(interrupted=False)
            while not interrupted and state.iteration < iters:
                if state.evaluations_without_gain >= limit:
                    logger.info(f"early stop at iter {state.iteration}: no better mIoU in {limit} evaluations")
                    break
                state.iteration += 1
                try:
                    found = self.step(batches)
                except WorkerError:  # while it waited for its data
                    state.iteration -= 1
                    raise
                profiler.step()
                self.writer.check()
                interrupted = found is not None and found.stop
                if interrupted or self._is_save_point():
                    interrupted = self._evaluate_and_save(interrupted)
            self.writer.wait()
            collectives.finish()
            if interrupted:
                self.stop.announce(state.iteration)
            return state
        except WorkerError as error:
            raise save_and_explain(self, error) from error
        finally:
            profiler.stop()
            batches.close()
            self.log.close()
            self.close()
            self.stop.restore()

    def _is_save_point(self) -> bool:
        return self.state.iteration % self.options.save_interval == 0 or self.state.iteration == self.config.iters

    def step(self, batches) -> Found | None:
        """One optimizer update from `grad_accum_iters` micro-batches; returns losses and flags if it reads them."""
        iteration = self.state.iteration
        seed_step(self.seed, iteration, collectives.rank())
        for micro in range(self.accumulate):
            with self.log.reading():
                data = next(batches)
            apart = (
                collectives.world_size() > 1 and micro < self.accumulate - 1
            )  # the last one averages the gradients over ranks
            with self.forward.no_sync() if apart else contextlib.nullcontext():
                self.window.add(self._backward(data))
        found = None
        # The host reads losses to log, to save, and every few seconds; ranks exchange signals at the same time.
        is_due = self.window.steps >= self.window.read_every or self.log.is_due(iteration) or self._is_save_point()
        if is_due or (self.stop.seen and collectives.world_size() == 1):
            checked = () if self.scaler.skips else nan_guard.gradients(self.model)  # loss scaling checks them itself
            found = self.window.read(all_finite(tensor for _, tensor in checked), self.stop.seen)
            nan_guard.require_finite(self, found)
        self.resumed_from = None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        nan_guard.require_useful_scale(iteration, self.model, self.scaler, self.saved)
        self.optimizer.clear_grad(set_to_zero=False)
        lr = self.optimizer.get_lr()
        self.schedule.step()
        if self.ema:
            self.ema.update(self.model, iteration)
        if found is not None:
            self.log.add(found.losses, found.steps)
            self.log.line_if_due(iteration, lr)
        return found

    def _backward(self, data: dict) -> list[tuple[str, paddle.Tensor]]:
        """Forward and backward pass of one micro-batch; returns its losses by name, on the device."""
        data = as_tensors(data)
        with amp.autocast(self.precision, self.options.amp_level):
            losses = self.losses(self.forward(data["img"]), data["label"], data.get("edge"), self.model, data)
            loss = sum(value for _, value in losses) / self.accumulate
        if paddle.get_device() == "cpu":
            allocator.give_back()  # the backward pass needs blocks of other sizes
        self.scaler.scale(loss).backward()
        return losses

    # ------------------------------------------------------------------------------------------ evaluate

    def _evaluate_and_save(self, interrupted: bool) -> bool:
        """Saves, then evaluates where due; returns whether a signal came, which ends an evaluation.

        A resumed run does that evaluation first.
        """
        self.log.pause()
        collectives.share_statistics(self.model)
        if self.ema:
            collectives.share_statistics(self.ema.model)
        scores = None
        due = self.val_dataset is not None and (self._is_save_point() or self.state.evaluation_due)
        self.state.evaluation_due = due
        self.save(None)
        if due and not interrupted:  # after saving, so that a failing evaluation loses no steps
            scores = self._evaluate()
            interrupted = scores is None
        if scores is not None:
            self.state.evaluation_due = False
            self.save(scores, is_written=True)
        self.log.resume()
        return interrupted

    def _evaluation_settings(self) -> dict:
        # Images are read in a thread: a process forked while threads of the training loader are inside Paddle may inherit a
        # held lock and deadlock.
        settings = dict(self.config.test_config_while_training, num_workers=0)
        return settings | {"precision": self.precision, "amp_level": self.options.amp_level}

    def _evaluate(self) -> dict[str, float] | None:
        """Scores by name; None if a signal ended the evaluation."""
        settings = self._evaluation_settings()
        iteration = self.state.iteration
        scores = {}
        for prefix, model in (("", self.model), ("Ema_", self.ema and self.ema.model)):
            if model is None:
                continue
            result = evaluate(model, self.val_dataset, stop=lambda: self.stop.seen, **settings)
            if result is None:
                return None
            miou, acc = result.metrics.miou, result.metrics.acc
            self.log.scalars({f"Evaluate/{prefix}mIoU": miou, f"Evaluate/{prefix}Acc": acc}, iteration)
            scores[f"{prefix}mIoU"] = miou
        if self.log.loggers:
            shown = preview(self.model, self.val_dataset, self.config.test_config_while_training)
            self.log.image("Evaluate/prediction", shown, iteration)
        return scores

    # ------------------------------------------------------------------------------------------ save

    def save(self, scores: dict[str, float] | None, is_written: bool = False) -> None:
        """Writes `iter_N`, or with `is_written` only its states; links it as `best_model` if it is the best so far.

        Rank 0 copies the state to host memory and writes it in a thread, see `CheckpointWriter`.
        """
        state, folder = self.state, self.save_dir / f"iter_{self.state.iteration}"
        scores = scores or {}
        if collectives.broadcast_object(self.writer.folder_was_deleted() if collectives.is_main() else None):
            best_models.forget_all(state)
            is_written = False
        better = zip(best_models.NAMES, state.take_scores(scores), strict=True)
        names = [name for name, is_better in better if is_better]
        if collectives.is_main():
            state.scaler, state.layout = self.scaler.state_dict(), self._layout()
            source = folder if is_written else self.resumed_from
            if source is None:
                ema = self.ema.model if self.ema else None
                given = {"model": self.model, "optimizer": self.optimizer, "ema": ema, "config_text": self.config_text}
                self.writer.submit(folder, take_snapshot(states=vars(state), **given), self.saved)
            else:  # before the first step of a resumed run, since Paddle's optimizer does not return its slots yet
                checkpoint.link_checkpoint(source, folder, vars(state))
                checkpoint.remove_old(self.save_dir, self.options.keep_checkpoint_max, newest=folder)
                self.saved += [folder] if folder not in self.saved else []
            if names:
                self.writer.wait()
            for name in names:
                checkpoint.link_checkpoint(folder, self.save_dir / name)
        elif not is_written:
            self.saved.append(folder)
        if scores:
            logger.info(
                f"[EVAL] The model with the best validation mIoU ({state.best_miou:.4f}) "
                f"was saved at iter {state.best_iteration}."
            )
        collectives.barrier("a save")


def train_from_config(config, args) -> TrainState:
    """Trains with a configuration and the flags of train.py.

    Args:
        config: a `paddle_dnl.config.Config`.
        args: an object with the attributes of `TrainOptions`, such as the parsed command line.
    """
    with config.named_in_errors():
        trainer = Trainer(config, TrainOptions.of(args))
    return trainer.run()
