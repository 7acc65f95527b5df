"""Training of a text model on pairs by sentence-transformers: its trainer with ``MultipleNegativesRankingLoss``.

Why it is fair: it is what one would use for this task. The trainer runs as its users call it (AdamW in one kernel, batches
padded to their longest text, a fast tokenizer), with nothing beside the steps: no evaluation, no saving, no reports, no
progress bar. Model folder, token limit, batch size, precision, learning rate, clipping, dropout and threads are ours; only
steps after a warm-up are timed, so its start is not. Its trainer needs the package ``datasets``; without it, the library's own
older loop takes its place (``old_fit``: the same loss and optimiser with less around them, hence no slower).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import InputExample, SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import batch_to_device, is_training_available
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.gpu import settle
from benchmarks.timing import Spent, between, now

Pairs = Sequence[tuple[str, str]]


class TimedLoss(nn.Module):
    """The loss, noting when each step asks for it: the time between two calls is that of one whole step.

    ``waits``: numbers of the calls before which a GPU must have done all it was told; only these times mean anything there.
    """

    def __init__(self, model: SentenceTransformer, temperature: float) -> None:
        super().__init__()
        self.inner = MultipleNegativesRankingLoss(model, scale=1.0 / temperature)
        self.called: list[Spent] = []
        self.waits: tuple[int, ...] = ()
        self._device = model.device

    def forward(self, features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        if len(self.called) in self.waits:
            settle(self._device)
        self.called.append(now())
        found: Tensor = self.inner(features, labels)
        return found


class Rival:
    """A text model that learns from pairs.

    Args:
        folder: of the text model.
        device: ``cpu``, or a GPU, where it computes in bfloat16.
        pairs: texts of anchor and positive.
        batch: pairs of a step.
        rate: learning rate.
    """

    def __init__(
        self, folder: Path, max_tokens: int, pairs: Pairs, batch: int, temperature: float, rate: float, device: str = "cpu"
    ) -> None:
        self.model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": torch.float32})
        self.model.max_seq_length = max_tokens
        self._on_gpu = device != "cpu"
        self._pairs, self._batch, self._rate = pairs, batch, rate
        self.loss = TimedLoss(self.model, temperature)
        self.name = "trainer of sentence-transformers" if is_training_available() else "old_fit() of sentence-transformers"

    def loss_of(self, pairs: Pairs) -> Tensor:
        """The loss of one batch, without dropout, with gradients."""
        self.model.eval()
        texts = [self.model.preprocess([pair[side] for pair in pairs]) for side in range(2)]
        columns = [batch_to_device(column, self.model.device) for column in texts]
        found: Tensor = self.loss.inner(columns, torch.zeros(0))
        return found

    def spent(self, warm_up: int, steps: int, folder: Path) -> Spent:
        """On ``steps`` steps after ``warm_up`` others."""
        self.loss.called.clear()
        self.loss.waits = (warm_up, warm_up + steps)
        train = self._by_trainer if is_training_available() else self._by_old_fit
        train(folder, warm_up + steps + 1)  # the start of one more step is the end of the last one timed
        return between(self.loss.called[warm_up], self.loss.called[warm_up + steps])

    def _by_trainer(self, folder: Path, steps: int) -> None:
        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        from transformers import PrinterCallback

        columns = {name: [pair[side] for pair in self._pairs] for side, name in enumerate(("anchor", "positive"))}
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=self._batch,
            max_steps=steps,
            learning_rate=self._rate,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            use_cpu=not self._on_gpu,
            bf16=self._on_gpu,
            dataloader_num_workers=0,
            dataloader_pin_memory=self._on_gpu,
            report_to="none",
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        data: Any = Dataset.from_dict(columns)
        trainer = SentenceTransformerTrainer(self.model, arguments, train_dataset=data, loss=self.loss)
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    def _by_old_fit(self, folder: Path, steps: int) -> None:
        examples: Any = [InputExample(texts=list(pair)) for pair in self._pairs]
        self.model.old_fit(
            [(DataLoader(examples, batch_size=self._batch, shuffle=True), self.loss)],
            steps_per_epoch=steps,
            warmup_steps=0,
            optimizer_params={"lr": self._rate, "fused": True},
            max_grad_norm=1.0,
            show_progress_bar=False,
        )
