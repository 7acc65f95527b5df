"""The training loop of one rank: steps with their figures, checkpoints, and the model of the best epoch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from recsys_spark.log import progress
from recsys_spark.training import checkpoint
from recsys_spark.training.calibrate import calibrations
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.export import export
from recsys_spark.training.job import TrainJob
from recsys_spark.training.metrics import MetricLog, StepMetrics
from recsys_spark.training.state import Progress
from recsys_spark.training.trainer import Trainer


def train(job: TrainJob, ranks: Ranks) -> None:
    """Train to the end, from wherever the newest checkpoint stands; rank 0 exports the model and ``result.json``.

    Raises:
        TrainingError: no data for a rank, or a loss that is no finite number.
        ConfigError: settings that do not go together.
    """
    trainer = Trainer(job, ranks)
    trainer.resume()
    with MetricLog(job.metrics, trainer.progress.step) if ranks.rank == 0 else contextlib.nullcontext() as metrics:
        for figures in _steps(trainer):
            if metrics is not None:
                metrics.write(figures)
    if ranks.rank == 0:
        state = trainer.progress
        best = checkpoint.load_best(job.checkpoints, trainer.identity)
        if best is not None:
            trainer.model.load_state_dict(best["model"])
        elif trainer.average is not None:
            trainer.average.swap()
        result = _result(trainer, state) | (calibrations(trainer.model, job, trainer.catalogue) if job.train.calibrate else {})
        export(job, trainer.encoder, trainer.text_encoder, trainer.catalogue, result)


def _steps(trainer: Trainer) -> Iterator[StepMetrics]:
    """Run the steps that are left; yields figures after each."""
    state, job, plan = trainer.progress, trainer.job, trainer.schedule
    if state.finished:
        return
    rows = trainer.batches.rows_per_step * trainer.ranks.world
    show = progress("train", plan.total_steps, "steps") if trainer.ranks.rank == 0 else contextlib.nullcontext()
    stream = trainer.batches.from_step(state.step)
    with show as meter, contextlib.closing(stream) as batches:
        if meter is not None:
            meter.advance(state.step)
        while not state.finished:
            start = time.perf_counter()
            batch, describe = next(batches)
            waited = time.perf_counter() - start
            rate, epoch = float(trainer.scheduler.get_last_lr()[0]), plan.epoch(state.step)
            done = trainer.step(batch, describe)
            ends = trainer.is_out_of_time() or plan.ends_epoch(state.step - 1)
            found = trainer.end_epoch(epoch) if ends else None
            seconds = time.perf_counter() - start
            state.seconds, state.wait_seconds = state.seconds + seconds, state.wait_seconds + waited
            losses = done.loss, done.user_item, done.item_item
            rates = rate, rows / seconds, waited / seconds
            yield StepMetrics(state.step, epoch, *losses, *rates, found, done.explicit, done.outcome, done.profile, *done.masked)
            if meter is not None:
                meter.advance(1, loss=done.loss, **({"recall": found} if found is not None else {}))
            if ends or state.step % job.train.checkpoint_every_steps == 0:
                trainer.save()


def _result(trainer: Trainer, state: Progress) -> dict[str, Any]:
    rows = trainer.batches.rows_per_step * trainer.ranks.world * state.step
    return {
        "best_epoch": None if state.best_epoch is None else state.best_epoch + 1,
        "epochs": trainer.schedule.epoch(state.step - 1) + 1,
        "stopped": state.stopped,
        "validation_recall": state.best_recall,
        "steps": state.step,
        "steps_per_epoch": trainer.schedule.steps_per_epoch,
        "seconds": state.seconds,
        "examples_per_second": rows / max(state.seconds, 1e-9),
        "feed_wait_share": state.wait_seconds / max(state.seconds, 1e-9),
        "negatives": trainer.job.train.negatives,
        "ranks": trainer.ranks.world,
        "device": str(trainer.ranks.device),
        **_gpu_memory(trainer.ranks.device),
        **({} if trainer.private is None else {"privacy": trainer.private.facts(state.step)}),
        **({"loss_weights": trainer.model.task_weights.weights()} if trainer.model.task_weights else {}),
    }


def _gpu_memory(device: torch.device) -> dict[str, float]:
    """The most that tensors held at once on this rank's GPU."""
    return {"peak_gpu_gib": torch.cuda.max_memory_allocated(device) / 2**30} if device.type == "cuda" else {}
