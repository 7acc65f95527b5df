"""A text model brought nearer to the catalogue's own words before training: masked words, or two drop-outs of one text."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recsys_spark.config.learning import EncoderSettings
from recsys_spark.encoder.losses import symmetric_info_nce
from recsys_spark.encoder.text_encoder import TextEncoder
from recsys_spark.encoder.text_source import resolve_dtype, text_model_key
from recsys_spark.log import progress

MASKED_SHARE = 0.15  # of a text's words, as BERT masks them
SIMCSE_TEMPERATURE = 0.05
FACTS = "adapted.json"
_TOKENS_AT_ONCE = 4_096  # whose activations are held: about half a gigabyte of MiniLM's
_NO_LABEL = -100  # what cross_entropy leaves out


def adapted_model(settings: EncoderSettings, texts: Sequence[str], seed: int, folder: Path) -> EncoderSettings:
    """The settings with their text model adapted to ``texts`` as they ask; done once, kept in ``folder`` by all it depends on.

    The same settings, texts and seed find the same folder; another thread count may change a last digit of what is in it,
    and cached text vectors go by its contents.

    Raises:
        ConfigError: there is no such text model.
    """
    words = sorted({text for text in texts if text.strip()})
    if settings.adapt == "none" or not words:
        return settings
    target = folder / _key(settings, words, seed)
    if not target.exists():
        encoder = TextEncoder.load(settings.text_model, settings.max_tokens, "float32")
        losses = adapt(encoder, words, settings, seed)
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        encoder.save(partial)
        (partial / FACTS).write_text(json.dumps({"adapt": settings.adapt, "texts": len(words), "losses": losses}))
        partial.rename(target)
    return settings.model_copy(update={"text_model": str(target), "adapt": "none"})


def _key(settings: EncoderSettings, words: Sequence[str], seed: int) -> str:
    model = text_model_key(settings.text_model, settings.max_tokens, "float32")
    how = settings.model_dump(include={"adapt", "adapt_steps", "adapt_batch_size", "adapt_learning_rate", "adapt_word_drop"})
    parts = [model, how, resolve_dtype(settings.dtype), seed, words]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def adapt(encoder: TextEncoder, texts: Sequence[str], settings: EncoderSettings, seed: int) -> list[float]:
    """Train the text model in place on texts that are not blank; the loss of each step. Random numbers are its own.

    Weights are float32; products are bfloat16 where the settings' ``dtype`` comes to that on this machine.
    """
    ids, num_tokens = (torch.from_numpy(part).long() for part in encoder.tokenise(texts))
    order = _order(len(texts), settings, seed)
    rounded = resolve_dtype(settings.dtype) == "bfloat16"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task: MaskedWords | TwoViews = (
            MaskedWords(encoder) if settings.adapt == "mlm" else TwoViews(encoder, settings.adapt_word_drop)
        )
        encoder.model.requires_grad_(True)
        optimiser = torch.optim.AdamW(task.parameters(), settings.adapt_learning_rate)
        losses = []
        task.train()
        with progress("adapt the text model", len(order), "steps") as meter:
            for rows in order:
                optimiser.zero_grad()
                rows = rows[num_tokens[rows].argsort(descending=True, stable=True)]  # texts of like length are encoded together
                longest = int(num_tokens[rows[0]])
                losses.append(0.0)
                for part in _parts(task, ids[rows, :longest], num_tokens[rows], rounded):
                    torch.autograd.backward(part)
                    losses[-1] += float(part.detach())
                nn.utils.clip_grad_norm_(task.parameters(), 1.0)
                optimiser.step()
                meter.advance(loss=losses[-1])
    encoder.eval()
    return losses


def _parts(task: MaskedWords | TwoViews, ids_NS: Tensor, num_tokens_N: Tensor, rounded: bool) -> Iterator[Tensor]:
    """The parts of a batch's loss, each with what its gradient needs until the next is asked for."""
    parts = task.parts(ids_NS, num_tokens_N)
    while True:
        with torch.autocast(ids_NS.device.type, torch.bfloat16, enabled=rounded):
            part = next(parts, None)
        if part is None:
            return
        yield part


def _order(num_texts: int, settings: EncoderSettings, seed: int) -> Tensor:
    """Rows [steps, batch]: pass after pass over all texts, each shuffled anew; a batch has no text twice, so the last of a
    pass that do not fill one are left for another pass."""
    size = min(settings.adapt_batch_size, num_texts)
    in_pass = num_texts // size
    generator = np.random.default_rng(seed)
    passes = [generator.permutation(num_texts)[: in_pass * size] for _ in range(-(-settings.adapt_steps // in_pass))]
    return torch.from_numpy(np.concatenate(passes).reshape(-1, size)[: settings.adapt_steps])


class MaskedWords(nn.Module):
    """Masked-language modelling: 15% of the tokens are hidden and must be found by their neighbours.

    Of the chosen, 80% become the mask token, 10% any token, 10% stay (BERT, Devlin et al. 2018, arXiv 1810.04805); domain
    adaptation by it: Gururangan et al. 2020 (arXiv 2004.10964). Scores of words are dot products with the model's own word
    vectors (tied weights, Press & Wolf 2017, arXiv 1608.05859) plus a learned bias. A tokenizer without a mask token
    hides by its unknown token.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        model: Any = encoder.model
        self._words: nn.Embedding = model.get_input_embeddings()
        self.bias = nn.Parameter(torch.zeros(self._words.num_embeddings))
        self._mask = encoder.mask_token

    def forward(self, ids_NS: Tensor, num_tokens_N: Tensor) -> Tensor:
        """Mean cross-entropy in nats of the hidden tokens; 0 where none was drawn."""
        return torch.stack(list(self.parts(ids_NS, num_tokens_N))).sum()

    def parts(self, ids_NS: Tensor, num_tokens_N: Tensor) -> Iterator[Tensor]:
        """What some texts at a time add to it."""
        hidden_NS, labels_NS = self.hide(ids_NS, num_tokens_N)
        wanted_NS = labels_NS != _NO_LABEL
        for some in _at_once(num_tokens_N):
            states_WT = self.encoder.states(hidden_NS[some], num_tokens_N[some[0]])[wanted_NS[some]]
            scores_WV = states_WT @ self._words.weight.T + self.bias
            lost = F.cross_entropy(scores_WV, labels_NS[some][wanted_NS[some]], reduction="sum")
            yield lost / wanted_NS.sum().clamp(min=1)

    def hide(self, ids_NS: Tensor, num_tokens_N: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids with some hidden, and their labels: -100 where nothing is asked. First and last token are special."""
        chosen_NS = (torch.rand(ids_NS.shape) < MASKED_SHARE) & _inner(ids_NS, num_tokens_N)
        how_NS = torch.rand(ids_NS.shape)
        masked_NS = ids_NS.masked_fill(chosen_NS & (how_NS < 0.8), self._mask)
        anything_NS = torch.randint(self._words.num_embeddings, ids_NS.shape)
        masked_NS = torch.where(chosen_NS & (how_NS >= 0.9), anything_NS, masked_NS)
        return masked_NS, ids_NS.masked_fill(~chosen_NS, _NO_LABEL)


class TwoViews(nn.Module):
    """SimCSE without labels: a text's vector under one drop-out must find its vector under another among the batch's.

    Gao et al. 2021 (arXiv 2104.08821, eq. 4), both ways; words are dropped as well, with chance ``word_drop``. The texts of
    a batch are distinct. Held are the vectors and the insides of some texts, which are encoded again, under the same
    drop-out, when their gradient is wanted (Chen et al. 2016, arXiv 1604.06174).
    """

    def __init__(self, encoder: TextEncoder, word_drop: float) -> None:
        super().__init__()
        self.encoder, self._word_drop = encoder, word_drop

    def forward(self, ids_NS: Tensor, num_tokens_N: Tensor) -> Tensor:
        """Mean InfoNCE in nats."""
        first, second = (self._encode(*dropped_words(ids_NS, num_tokens_N, self._word_drop)) for _ in range(2))
        return symmetric_info_nce(first, second, SIMCSE_TEMPERATURE)

    def _encode(self, ids_NS: Tensor, num_tokens_N: Tensor) -> Tensor:
        parts = [
            checkpoint(self.encoder, ids_NS[some], num_tokens_N[some[0]], use_reentrant=False, preserve_rng_state=True)
            for some in _at_once(num_tokens_N)
        ]
        return torch.cat(parts)

    def parts(self, ids_NS: Tensor, num_tokens_N: Tensor) -> Iterator[Tensor]:
        """The whole: a text's negatives are all others of the batch."""
        yield self(ids_NS, num_tokens_N)


def _at_once(num_tokens_N: Tensor) -> Iterator[tuple[slice, slice]]:
    """Some texts of a batch after another, and as many of their tokens as the longest has: no more than hold little enough."""
    first, longest = 0, 1
    ends = [_TOKENS_AT_ONCE]  # a text beside which none fits
    for text, tokens in enumerate(num_tokens_N.tolist() + ends):
        if text > first and (text - first + 1) * max(longest, tokens) > _TOKENS_AT_ONCE:
            yield slice(first, text), slice(0, longest)
            first, longest = text, 1
        longest = max(longest, tokens)


def dropped_words(ids_NS: Tensor, num_tokens_N: Tensor, chance: float) -> tuple[Tensor, Tensor]:
    """Tokens with each but the first and last (they are special) left out with ``chance``, and how many are left."""
    real_NS = torch.arange(ids_NS.shape[1], device=ids_NS.device) < num_tokens_N[:, None]
    gone_NS = (torch.rand(ids_NS.shape, device=ids_NS.device) < chance) & _inner(ids_NS, num_tokens_N)
    kept_NS = real_NS & ~gone_NS
    order_NS = (~kept_NS).to(torch.int8).argsort(dim=1, stable=True)
    packed_NS = ids_NS.masked_fill(~kept_NS, 0).gather(1, order_NS)
    return packed_NS, kept_NS.sum(1)


def _inner(ids_NS: Tensor, num_tokens_N: Tensor) -> Tensor:
    place_S = torch.arange(ids_NS.shape[1], device=ids_NS.device)
    return (place_S > 0) & (place_S < num_tokens_N[:, None] - 1)
