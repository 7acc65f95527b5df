"""One rank's trainer: model, optimiser and feeds, a step, resuming, and what happens at an epoch's end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from recsys_spark.encoder.model import Encoder
from recsys_spark.encoder.query_table import load_queries
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.encoder.text_source import resolve_dtype
from recsys_spark.errors import TrainingError
from recsys_spark.log import get_logger
from recsys_spark.training import checkpoint
from recsys_spark.training.averaging import WeightAverage
from recsys_spark.training.catalogue import Catalogue, load_catalogue
from recsys_spark.training.distributed import Ranks
from recsys_spark.training.feed.batch import Batch, StepOutput
from recsys_spark.training.feed.batches import Batches, known_pairs, validation_sequences
from recsys_spark.training.feed.plan import Schedule, derived_seed, schedule
from recsys_spark.training.job import TrainJob, check_losses, check_negatives, settled
from recsys_spark.training.metrics import KINDS
from recsys_spark.training.optim import build_optimiser, build_scheduler
from recsys_spark.training.private.step import PrivateStep
from recsys_spark.training.private.users import DrawnUsers
from recsys_spark.training.state import Progress, planned_steps
from recsys_spark.training.step.adversarial import moved
from recsys_spark.training.step.train_step import TrainStep
from recsys_spark.training.validate import all_item_vectors, recall

log = get_logger(__name__)


class StepFigures(NamedTuple):
    """Of one step, over all ranks: losses in nats, and masked negatives by ``metrics.KINDS``."""

    loss: float
    user_item: float
    item_item: float
    explicit: float
    masked: tuple[int, ...]
    outcome: float
    profile: float


class Trainer:
    """One rank's model, optimiser and feeds, and what moves them one step on."""

    def __init__(self, job: TrainJob, ranks: Ranks) -> None:
        self.catalogue: Catalogue = load_catalogue(job.inputs, job.trains_text, ranks.device)
        job = replace(job, train=settled(job.encoder, job.train, len(self.catalogue)))
        self.job, self.ranks, self.progress = job, ranks, Progress()
        self.identity = f"{job.fingerprint}/{ranks.world}"  # another number of ranks reads other rows in a step
        check_negatives(job.encoder, job.train, len(self.catalogue))
        check_losses(job.encoder, job.train)
        make = Batches if job.train.privacy is None else DrawnUsers
        self.batches: Batches | DrawnUsers = make(job, self.catalogue, ranks.rank, ranks.world)
        self.validation = validation_sequences(job, self.catalogue, ranks.rank, ranks.world)
        self.schedule: Schedule = schedule(self.batches.steps_per_epoch, job.train.epochs, job.train.max_steps)
        self.text_encoder = self._text_encoder()
        self.encoder = self._encoder()
        how = (self.text_encoder, self._bfloat16(), known_pairs(job, self.catalogue), job.augment)
        self.model = TrainStep(self.encoder, self.catalogue, job.train, ranks, *how)
        self.private = self._private()
        self.parallel = self._parallel(self.model)
        text_weights = self.text_encoder.parameters() if self.text_encoder else ()
        weights = [*self.encoder.parameters(), *(self.model.task_weights.parameters() if self.model.task_weights else ())]
        self.optimiser: Optimizer = build_optimiser(job.train, weights, text_weights)
        self._planned = self.schedule.total_steps
        self.scheduler: LambdaLR = build_scheduler(self.optimiser, lambda: self._planned, job.train.warmup_share)
        self.average = WeightAverage(self.model.parameters(), job.train.weight_average) if job.train.weight_average else None

    def _text_encoder(self) -> TextEncoder | None:
        settings = self.job.encoder
        if settings.text_training == "frozen":
            return None
        text_encoder = TextEncoder.load(settings.text_model, settings.max_tokens, "float32")
        torch.manual_seed(derived_seed(self.job.seed, "text weights"))
        text_encoder.train_only(settings.text_training, settings.trained_layers, settings.lora_rank, settings.lora_alpha)
        return text_encoder.to(self.ranks.device)

    def _encoder(self) -> Encoder:
        torch.manual_seed(derived_seed(self.job.seed, "weights"))
        text_dim = self.text_encoder.dimension if self.text_encoder else self.catalogue.text_dim
        train = self.job.train
        items = self.catalogue
        how = (train.temperature, train.learn_temperature, items.events_of_ids(), len(items.attribute_values))
        encoder = Encoder(self.job.encoder, text_dim, len(items.item_ids), *how, outcome_head=train.outcome_share > 0)
        encoder.with_profile_tower(train.profile_share > 0).with_queries(load_queries(self.job.inputs, self.ranks.device))
        return encoder.to(self.ranks.device)

    def _private(self) -> PrivateStep | None:
        if not isinstance(self.batches, DrawnUsers):
            return None
        return PrivateStep(self.model, self.catalogue, self.job.train, self.batches, self.schedule)

    def _bfloat16(self) -> bool:
        wanted = self.job.train.precision
        if wanted == "auto":
            return resolve_dtype("auto") == "bfloat16"
        return wanted == "bfloat16"

    def _parallel(self, model: TrainStep) -> nn.Module:
        """The step with its gradients averaged over the ranks; alone it is itself, for they would only be copied."""
        device = self.ranks.device
        if self.ranks.world == 1 or isinstance(self.batches, DrawnUsers):  # whose gradients a private step sums
            return model
        return DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            process_group=self.ranks.gradient_group,
            find_unused_parameters=len(self.batches.feeds) == 1 or self.text_encoder is not None,
        )

    # -- resuming ---------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on from the newest checkpoint of this job, if there is one."""
        state = checkpoint.load_newest(self.job.checkpoints, self.identity)
        steps = torch.tensor([-1 if state is None else int(state["step"])], device=self.ranks.device)
        found = sorted(set(self.ranks.gather_constant(steps).tolist()))
        if len(found) > 1:
            where = f"checkpoints in {self.job.checkpoints}"
            raise TrainingError(where, f"steps {found} on different ranks", "one folder", "put train.work_dir on shared storage")
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average is not None:
            self.average.load(state["average"])
        self.progress = Progress(**state["progress"])
        if self.ranks.rank == 0:
            log.info("training continues from a checkpoint", step=self.progress.step)

    def save(self) -> None:
        """Write a checkpoint (rank 0). Random numbers need none: each step draws from a seed made of its own number."""
        if self.ranks.rank != 0:
            return
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": asdict(self.progress),
            **({} if self.average is None else {"average": self.average.state()}),
        }
        checkpoint.save(self.job.checkpoints, self.identity, self.progress.step, state)

    # -- one step ---------------------------------------------------------------------------------------------

    def step(self, batch: Batch, rows: Callable[[], str]) -> StepFigures:
        """One optimiser step; returns losses and counts over all ranks.

        Raises:
            TrainingError: the loss or a gradient is no finite number; weights are as before the step.
        """
        torch.manual_seed(derived_seed(self.job.seed, "step", self.ranks.rank, self.progress.step))
        self.parallel.train(True)
        self.optimiser.zero_grad(set_to_none=True)
        shared_seed = derived_seed(self.job.seed, "negatives", self.progress.step)
        batch = replace(batch, shared_seed=shared_seed)
        figures = self._backward(batch, rows) if self.private is None else self._private_backward(self.private, batch, rows)
        self._check_finite("gradient", self._clip(), rows)
        self.optimiser.step()
        self.scheduler.step()
        self.progress.step += 1
        if self.average is not None:
            self.average.update(self.progress.step)
        return figures

    def _backward(self, batch: Batch, rows: Callable[[], str]) -> StepFigures:
        out: StepOutput = self.parallel(batch)
        figures = self._figures(out)
        self._check_finite("loss", figures.loss, rows)
        torch.autograd.backward(out.loss)
        self._adversarial(batch)
        return figures

    def _private_backward(self, private: PrivateStep, batch: Batch, rows: Callable[[], str]) -> StepFigures:
        loss = private.backward(batch, self.ranks)
        self._check_finite("loss", loss, rows)
        return StepFigures(loss, loss, 0.0, 0.0, (0,) * len(KINDS), 0.0, 0.0)

    def _figures(self, out: StepOutput) -> StepFigures:
        shares = [out.loss, out.user_item, out.item_item, out.explicit, out.outcome, out.profile]
        losses = torch.stack(shares).detach().double() / self.ranks.world
        summed = self.ranks.sum(torch.cat([losses, out.masked.double()])).tolist()
        loss, user_item, item_item, explicit, outcome, profile = summed[: len(shares)]
        masked = tuple(int(count) for count in summed[len(shares) :])
        return StepFigures(loss, user_item, item_item, explicit, masked, outcome, profile)

    def _adversarial(self, batch: Batch) -> None:
        """Add the gradients of the loss with every id part moved against it, where that is asked for."""
        settings, ids = self.job.augment, self.encoder.item_tower.ids
        if settings.adversarial_epsilon > 0 and ids is not None:
            with moved(ids.weight, settings.adversarial_epsilon):
                torch.autograd.backward(settings.adversarial_share * self.parallel(batch).loss)

    def _clip(self) -> float:
        weights = [p for p in self.parallel.parameters() if p.grad is not None]
        limit = self.job.train.clip_norm
        return float(nn.utils.clip_grad_norm_(weights, limit if limit is not None else math.inf))

    def _check_finite(self, what: str, value: float, rows: Callable[[], str]) -> None:
        if math.isfinite(value):
            return
        raise TrainingError(
            f"training step {self.progress.step}",
            f"{what} is {value} on the batch of rank {self.ranks.rank} ({rows()})",
            "a finite number",
            "look at these rows, or lower train.learning_rate; the last good checkpoint is kept",
        )

    def is_out_of_time(self) -> bool:
        """Whether this step was the last, the same on every rank; learning rates are told how many there will be."""
        limit, state, plan = self.job.train.max_minutes, self.progress, self.schedule
        if limit is None:
            return False
        seconds = self._seconds()
        if state.epochs == 0:
            self._planned = planned_steps(state.step, seconds, plan.steps_per_epoch, plan.total_steps, limit)
        return seconds > 60 * limit

    # -- one epoch's end --------------------------------------------------------------------------------------

    def validate(self) -> float | None:
        """Validation recall over all ranks, or None without validation data."""
        self.parallel.eval()
        vectors = all_item_vectors(self.model, self.catalogue, self.ranks)
        return recall(self.encoder, vectors, self.validation, self.job.train.validation_k, self.ranks)

    def end_epoch(self, epoch: int) -> float | None:
        """Validate, keep the best epoch's weights, and see whether to stop early. Returns the recall."""
        with contextlib.nullcontext() if self.average is None else self.average.in_place():
            return self._end_epoch(epoch)

    def _end_epoch(self, epoch: int) -> float | None:
        found, state = self.validate(), self.progress
        if self.private is not None:  # validation users may be told of, but choose nothing
            state.last_epoch(epoch, found)
        elif state.epoch_done(epoch, found) and self.ranks.rank == 0:
            best = {"model": self.model.state_dict(), "epoch": epoch, "recall": found}
            checkpoint.save_best(self.job.checkpoints, self.identity, best)
        train = self.job.train
        state.stop(self.schedule.total_steps, train.patience, self._seconds(), train.max_minutes)
        return found

    def _seconds(self) -> float:
        """Those of the first rank, on every rank: all must stop at the same step."""
        own = self.progress.seconds if self.ranks.rank == 0 else 0.0
        return float(self.ranks.sum(torch.tensor([own], dtype=torch.float64, device=self.ranks.device)))
