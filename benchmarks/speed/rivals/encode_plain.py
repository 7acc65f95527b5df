"""Texts to vectors in one process: ``encode()`` of sentence-transformers, or a plain loop where it is not installed.

Why it is fair: both get the same MiniLM folder and the same token limit, loaded outside of the timing, and all threads of
the machine. ``encode()`` runs as its users call it (batches of 32 of like length, float32, mean pooling, unit length); the
loop does the same steps on ``transformers`` alone. Neither writes a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Float32 = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Float32]
BATCH = 32


def rival_encoder(folder: Path, max_tokens: int) -> tuple[str, Encode]:
    """What the rival is called, and its function from texts to unit vectors ``[n, T]``."""
    if find_spec("sentence_transformers") is not None:
        return "sentence-transformers encode()", _sentence_transformers(folder, max_tokens)
    return "plain loop over transformers", _plain_loop(folder, max_tokens)


def _sentence_transformers(folder: Path, max_tokens: int) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = max_tokens

    def encode(texts: Sequence[str]) -> Float32:
        found: Float32 = model.encode(list(texts), batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        return found

    return encode


def _plain_loop(folder: Path, max_tokens: int) -> Encode:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
    model = AutoModel.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Float32:
        vectors = np.empty((len(texts), int(model.config.hidden_size)), np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = [texts[row] for row in rows]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
            states = model(**tokens).last_hidden_state
            real = tokens["attention_mask"][..., None].to(states.dtype)
            vectors[rows] = F.normalize((states * real).sum(1) / real.sum(1), dim=-1).numpy()
        return vectors

    return encode
