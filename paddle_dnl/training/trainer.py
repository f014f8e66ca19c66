# SPDX-License-Identifier: Apache-2.0
"""Training, in the order things happen: build, resume, then loop { step, log, evaluate, save }."""

import time
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.loading import WorkerError, as_tensors, load_batches, stack_training
from paddle_dnl.distributed import collectives
from paddle_dnl.distributed.signals import StopSignal
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.log import logger
from paddle_dnl.losses import build_losses
from paddle_dnl.models.build import build_model, load_start_weights
from paddle_dnl.optim import build_lr_scheduler, build_optimizer
from paddle_dnl.profile.memory_plan import announce_evaluation
from paddle_dnl.startup import allocator
from paddle_dnl.training import amp, best_models, checkpoint, nan_guard, preflight, published, recipe_changes
from paddle_dnl.training.ema import ModelEMA
from paddle_dnl.training.logs import TrainLog
from paddle_dnl.training.options import Progress, TrainOptions
from paddle_dnl.training.preview import preview
from paddle_dnl.training.profiling import make_profiler
from paddle_dnl.training.run_folder import RunFolder
from paddle_dnl.training.sampling import (
    PositionedDataset,
    PositionSampler,
    dataset_fingerprint,
    sample_names,
    seed_step,
)
from paddle_dnl.training.worker_loss import save_and_explain

import numpy as np
import paddle


class Trainer:
    """One training run.

    Args:
        config: a `paddle_dnl.config.Config`.
        options: see `TrainOptions`.

    Raises:
        PaddleDnlError: anything wrong with configuration, data, folder or checkpoint, before the first step.
    """

    def __init__(self, config, options: TrainOptions):
        self.config, self.options = config, options
        collectives.initialise()
        published.announce(config, options.precision)
        self.progress = Progress()
        self._choose_seed()
        if options.resume_model is None:
            preflight.fetch_start_weights(config)  # before data are read, which may take minutes
        self._build_data()
        self._build_model()
        self.folder = None
        try:
            self._open_folder()
            self._load_start_weights()
            self._prepare_model()
            self._resume()
            preflight.check_model(self, self._evaluation_settings())
        except BaseException:  # who keeps the exception, as a notebook does, would keep the folder with it
            self._close_folder()
            raise

    # ------------------------------------------------------------------------------------------ build

    def _choose_seed(self) -> None:
        seed = self.options.seed
        if seed is None:
            seed = collectives.broadcast_object(int(np.random.SeedSequence().entropy % 2**31))
        self.seed = seed
        paddle.seed(seed)

    def _build_data(self) -> None:
        config = self.config
        preflight.check_config(config)
        self.train_dataset = registry.build(config.train_dataset_cfg, "dataset", "train_dataset")
        self.val_dataset = None
        if self.options.do_eval:
            self.val_dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
        preflight.check_data(self.train_dataset, self.val_dataset, self.options)
        self.accumulate = config.dic.get("grad_accum_iters", 1)
        self.sampler = PositionSampler(
            len(self.train_dataset) * self.options.repeats,
            config.batch_size,
            config.iters * self.accumulate,
            seed=self.seed,
            rank=collectives.rank(),
            world_size=collectives.world_size(),
        )

    def _build_model(self) -> None:
        config = self.config
        self.precision = amp.effective_precision(self.options.precision)
        self.model = build_model(config)
        self.losses = build_losses(config.loss_cfg)
        self.schedule = build_lr_scheduler(config.lr_scheduler_cfg, config.iters)
        self.optimizer = build_optimizer(config.optimizer_cfg, self.model, self.schedule)

    def _prepare_model(self) -> None:
        options = self.options
        if self.precision != "fp32":
            logger.info(f"AMP in {self.precision}, level {options.amp_level}")
            if options.amp_level == "O2":
                dtype = {"fp16": "float16", "bf16": "bfloat16"}[self.precision]
                self.model, self.optimizer = paddle.amp.decorate(
                    self.model, self.optimizer, level="O2", dtype=dtype, save_dtype="float32"
                )
        self.scaler = amp.make_scaler(self.precision)
        self.ema = ModelEMA(self.model, self.config.dic.get("ema_decay", 0.999)) if options.use_ema else None
        self.forward = self.model
        if options.to_static_training:
            self.forward = paddle.jit.to_static(self.model)
        if collectives.world_size() > 1:
            collectives.barrier("the first step")
            # A head may leave parameters unused (auxiliary branch switched off); their gradients are then zero.
            self.forward = paddle.DataParallel(self.forward, find_unused_parameters=True)

    def _open_folder(self) -> None:
        """Tidies the folder first, so that what is resumed can be found by its name."""
        options = self.options
        self.save_dir = Path(options.save_dir)
        chosen = None
        if collectives.is_main():
            self.folder = RunFolder(self.save_dir)
            self.config_text = self.config.dump()
            chosen = checkpoint.find_resume(options.resume_model, self.save_dir)
            checkpoint.require_free_names(self.save_dir, chosen, best_models.NAMES if options.do_eval else ())
            if chosen is not None:
                recipe_changes.review(chosen, self.config.dic, options.allow_recipe_changes)
            self.folder.write_config(self.config_text, self.config.files)
        # Rank 0 chooses for all: each might find another one, or none, on a disk of its own.
        self.resumed_from = collectives.broadcast_object(chosen)
        # Checkpoints that this run wrote or began with, oldest first.
        self.saved = [] if self.resumed_from is None else [self.resumed_from]

    def _close_folder(self) -> None:
        if self.folder is not None:
            self.folder.close()

    def _load_start_weights(self) -> None:
        """What the configuration names; a run that resumes replaces them anyway and needs no download."""
        if self.resumed_from is None:
            load_start_weights(self.model, preflight.fetch_start_weights(self.config))

    # ------------------------------------------------------------------------------------------ resume

    def _layout(self) -> dict:
        """What must stay the same for a resumed run to be the continuation of the first."""
        return {
            "seed": self.seed,
            "batch_size": self.config.batch_size,
            "world_size": collectives.world_size(),
            "grad_accum_iters": self.accumulate,
            "train_images": len(self.train_dataset) * self.options.repeats,
            "train_files": dataset_fingerprint(self.train_dataset),
            "precision": self.precision,
        }

    def _resume(self) -> None:
        folder = self.resumed_from
        if folder is None:
            if collectives.is_main() and checkpoint.iteration_folders(self.save_dir):
                logger.warning(f"{self.save_dir} holds checkpoints of an earlier run; --resume_model auto continues it")
            return
        ema = self.ema.model if self.ema else None
        into = {"model": self.model, "optimizer": self.optimizer, "ema": ema}
        states = checkpoint.load_checkpoint(folder, **into, fresh_optimizer=self.options.fresh_optimizer)
        progress = Progress(**{k: v for k, v in states.items() if k in Progress.__dataclass_fields__})
        recipe_changes.require_remaining(folder, progress.iteration, self.config.iters)
        if collectives.is_main():
            best_models.carry_over(folder, self.save_dir, progress)
        self.progress = collectives.broadcast_object(progress)
        self.scaler.load_state_dict(states.get("scaler") or {})
        before = states.get("layout", {})
        if self.options.seed is None and "seed" in before:
            self.seed = self.sampler.seed = before["seed"]
        changed = [f"{k} {before[k]} -> {v}" for k, v in self._layout().items() if k in before and before[k] != v]
        if changed:
            logger.warning(f"resuming with {', '.join(changed)}: the samples will not be those of an unbroken run")
        self.sampler.first_step = self.progress.iteration * self.accumulate
        logger.info(f"resumed from {folder} at iter {self.progress.iteration}")

    # ------------------------------------------------------------------------------------------ loop

    def run(self) -> Progress:
        """Trains to the end of the schedule, or to an early stop or a signal; returns where it stands."""
        options, iters = self.options, self.config.iters
        self.log = TrainLog(
            iters=iters,
            log_iters=options.log_iters,
            steps_per_epoch=max(1, self.sampler.steps_per_epoch // self.accumulate),
            batch_size=self.config.batch_size * self.accumulate,
            save_dir=self.save_dir,
            use_vdl=options.use_vdl,
            print_mem_info=options.print_mem_info,
        )
        logger.info(f"training {self.progress.iteration} -> {iters} iters, seed {self.seed}, output in {self.save_dir}")
        is_plain = not options.to_static_training and options.amp_level != "O2"  # as the plan's probe needs the layers
        if self.val_dataset is not None and collectives.is_main() and is_plain:
            announce_evaluation(self.model, self.val_dataset, self.config.test_config_while_training)
        batches = self._batches()
        stop = self.stop = StopSignal()
        profiler = make_profiler(options.profiler_options, self.save_dir)
        try:
            self.model.train()
            interrupted = self.progress.evaluation_due and self._evaluate_and_save(interrupted=False)
            while not interrupted and self.progress.iteration < iters and not self._converged():
                self.progress.iteration += 1
                losses = self._step(batches)
                self.log.step(self.progress.iteration, losses, self._next_lr())
                profiler.step()
                interrupted = collectives.any_rank(stop.seen)
                if interrupted or self._is_save_point():
                    interrupted = self._evaluate_and_save(interrupted)
            if interrupted:
                logger.warning(f"stopped by signal at iter {self.progress.iteration}; --resume_model auto goes on")
            collectives.finish()
            return self.progress
        except WorkerError as error:
            raise save_and_explain(self, error) from error
        finally:
            profiler.stop()
            batches.close()
            self.log.close()
            self._close_folder()
            stop.restore()

    def _is_save_point(self) -> bool:
        iteration = self.progress.iteration
        return iteration % self.options.save_interval == 0 or iteration == self.config.iters

    def _converged(self) -> bool:
        limit = self.options.early_stop_intervals
        stop = limit is not None and self.progress.evaluations_without_gain >= limit
        if stop:
            logger.info(f"early stop at iter {self.progress.iteration}: no better mIoU in {limit} evaluations")
        return stop

    def _batches(self):
        """One loader for the whole run: its workers are started once and read ahead across epochs."""
        dataset = PositionedDataset(self.train_dataset, self.seed)
        return load_batches(dataset, self.sampler, stack_training, self.options.num_workers)

    def _step(self, batches) -> dict[str, float]:
        """Forward and backward on `grad_accum_iters` micro-batches, one update; returns the losses, mean of all ranks."""
        iteration = self.progress.iteration
        seed_step(self.seed, iteration, collectives.rank())
        total: dict[str, float] = {}
        problem = ""
        for micro in range(self.accumulate):
            began = time.perf_counter()
            data = next(batches)
            self.log.read(time.perf_counter() - began)
            if collectives.world_size() > 1 and micro < self.accumulate - 1:
                with self.forward.no_sync():
                    losses = self._backward(data)
            else:
                losses = self._backward(data)
            step = (iteration - 1) * self.accumulate + micro
            problem = problem or self._loss_problem(losses, step)
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value
        means = dict(zip(total, collectives.all_reduce_mean(list(total.values())), strict=True))
        nan_guard.require_finite_losses(iteration, means, problem, self.saved)
        nan_guard.require_finite_gradients(iteration, self.model, self.scaler, self.saved)
        self.resumed_from = None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        nan_guard.require_useful_scale(iteration, self.model, self.scaler, self.saved)
        self.optimizer.clear_grad(set_to_zero=False)
        if self.ema:
            self.ema.update(self.model, iteration)
        return means

    def _backward(self, data: dict) -> dict[str, float]:
        data = as_tensors(data)
        with amp.autocast(self.precision, self.options.amp_level):
            losses = self.losses(self.forward(data["img"]), data["label"], data.get("edge"), self.model, data)
            loss = sum(value for _, value in losses) / self.accumulate
        if paddle.get_device() == "cpu":
            allocator.give_back()  # the backward pass needs blocks of other sizes
        self.scaler.scale(loss).backward()
        return {name: float(value) / self.accumulate for name, value in losses}

    def _loss_problem(self, losses: dict[str, float], step: int) -> str:
        if np.isfinite(list(losses.values())).all():
            return ""
        files = sample_names(self.train_dataset, self.sampler.batch(step))
        return nan_guard.loss_problem(losses, files, self.model)

    def _next_lr(self) -> float:
        """The rate that was just used; moves the schedule on."""
        lr = self.optimizer.get_lr()
        self.schedule.step()
        return lr

    # ------------------------------------------------------------------------------------------ evaluate

    def _evaluate_and_save(self, interrupted: bool) -> bool:
        """Both at a save point; whether a signal has come. It ends an evaluation, which a resumed run then does first."""
        self.log.pause()
        collectives.share_statistics(self.model)
        if self.ema:
            collectives.share_statistics(self.ema.model)
        scores = None
        due = self.val_dataset is not None and (self._is_save_point() or self.progress.evaluation_due)
        self.progress.evaluation_due = due
        self._save(None)
        if due and not interrupted:  # after saving: an evaluation that fails costs no steps
            scores = self._evaluate()
            interrupted = scores is None
        if scores is not None:
            self.progress.evaluation_due = False
            self._save(scores, is_written=True)
        self.log.resume()
        return interrupted

    def _evaluation_settings(self) -> dict:
        settings = dict(self.config.test_config_while_training, num_workers=min(self.options.num_workers, 1))
        return settings | {"precision": self.precision, "amp_level": self.options.amp_level}

    def _evaluate(self) -> dict[str, float] | None:
        """The scores, by name; None when a signal came."""
        settings = self._evaluation_settings()
        iteration = self.progress.iteration
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
        if self.log.writer is not None:
            shown = preview(self.model, self.val_dataset, self.config.test_config_while_training)
            self.log.image("Evaluate/prediction", shown, iteration)
        self.model.train()
        return scores

    # ------------------------------------------------------------------------------------------ save

    def _save(self, scores: dict[str, float] | None, is_written: bool = False) -> None:
        """Writes `iter_N`, or with `is_written` only its states; names it `best_model` when it is the best so far."""
        progress, iteration = self.progress, self.progress.iteration
        scores = scores or {}
        if collectives.broadcast_object(self.folder.ensure() if collectives.is_main() else None):
            best_models.forget_all(progress)
        better = scores.get("mIoU", -1.0) > progress.best_miou
        better_ema = scores.get("Ema_mIoU", -1.0) > progress.best_ema_miou
        if better:
            progress.best_miou, progress.best_iteration = scores["mIoU"], iteration
        if better_ema:
            progress.best_ema_miou = scores["Ema_mIoU"]
        if scores:
            gain = better or better_ema
            progress.evaluations_without_gain = 0 if gain else progress.evaluations_without_gain + 1
        folder = self.save_dir / f"iter_{iteration}"
        if collectives.is_main():
            states = {**vars(progress), "scaler": self.scaler.state_dict(), "layout": self._layout()}
            source = folder if is_written else self.resumed_from
            if source is not None:  # when resumed, before its first step Paddle's optimizer does not give its slots
                checkpoint.link_checkpoint(source, folder, states)
            else:
                ema = self.ema.model if self.ema else None
                given = {"model": self.model, "optimizer": self.optimizer, "ema": ema, "config_text": self.config_text}
                checkpoint.save_checkpoint(folder, states=states, **given)
            if better:
                checkpoint.link_checkpoint(folder, self.save_dir / best_models.BEST)
            if better_ema:
                checkpoint.link_checkpoint(folder, self.save_dir / best_models.EMA_BEST)
            checkpoint.remove_old(self.save_dir, self.options.keep_checkpoint_max, newest=folder)
        if not is_written:
            self.saved.append(folder)
        if scores:
            logger.info(
                f"[EVAL] The model with the best validation mIoU ({progress.best_miou:.4f}) "
                f"was saved at iter {progress.best_iteration}."
            )
        collectives.barrier("a save")


def train_from_config(config, args) -> Progress:
    """Trains as a configuration and the flags of train.py say.

    Args:
        config: a `paddle_dnl.config.Config`.
        args: an object with the attributes of `TrainOptions`, for instance the parsed command line.
    """
    options = TrainOptions(**{name: getattr(args, name) for name in TrainOptions.__dataclass_fields__})
    with config.named_in_errors():
        trainer = Trainer(config, options)
    return trainer.run()
