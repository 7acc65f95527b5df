"""Texts to vectors: any Hugging Face text encoder, mean-pooled, for training and for batch encoding."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recsys_spark.encoder.text_source import Dtype, load_source, resolve_dtype, tokenizer_text

CHARS_PER_TOKEN = 32  # a text is cut to this many characters a token before tokenising: 100,000 characters cost nothing
TextTraining = Literal["frozen", "last_layers", "lora", "full"]


class TextEncoder(nn.Module):
    """A text model with its tokenizer; text vectors are the mean of the token states, scaled to unit length.

    Legend: n texts, S tokens (padded with 0), T = ``dimension``. A blank text has 0 tokens and the zero vector.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_tokens: int, source: str) -> None:
        super().__init__()
        self.model, self.source, self.max_tokens = model, source, max_tokens
        self._hf_tokenizer = tokenizer
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer_json = tokenizer_text(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._pad = int(tokenizer.pad_token_id or 0)
        unknown = tokenizer.unk_token_id or self._pad
        self.mask_token = int(unknown if tokenizer.mask_token_id is None else tokenizer.mask_token_id)  # what hides a word

    @classmethod
    def load(cls, name_or_path: str | Path, max_tokens: int, dtype: Dtype = "auto") -> TextEncoder:
        """Load ``"minilm"``, ``"tiny"``, a folder, or a model of the Hugging Face hub by name.

        Raises:
            ConfigError: there is no such model, or its tokenizer cannot be used.
        """
        model, tokenizer = load_source(str(name_or_path), resolve_dtype(dtype))
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # unused here; DistributedDataParallel would wait for its gradients
        limit = getattr(model.config, "max_position_embeddings", None) or max_tokens
        return cls(model, tokenizer, min(max_tokens, int(limit)), str(name_or_path))

    @property
    def dimension(self) -> int:
        """T, the length of a text vector."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def tokenizer_sha(self) -> str:
        """SHA-256 of tokenizer.json as ``save`` writes it."""
        return hashlib.sha256(self._tokenizer_json.encode("utf-8")).hexdigest()

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tokenise(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Token ids int32 [n, max_tokens], padded with 0, and the number of tokens int32 [n]; a blank text has 0."""
        ids = np.zeros((len(texts), self.max_tokens), dtype=np.int32)
        num_tokens = np.zeros(len(texts), dtype=np.int32)
        cut = [text[: CHARS_PER_TOKEN * self.max_tokens].strip() for text in texts]
        filled = [row for row, text in enumerate(cut) if text]
        encodings = self._tokenizer.encode_batch([_speakable(cut[row]) for row in filled])
        for row, encoding in zip(filled, encodings, strict=True):
            ids[row, : len(encoding.ids)] = encoding.ids
            num_tokens[row] = len(encoding.ids)
        return ids, num_tokens

    def forward(self, ids: Tensor, num_tokens: Tensor) -> Tensor:
        """Text vectors [n, T], float32, unit length, from token ids [n, S] and token counts [n]; with gradients."""
        states = self.states(ids, num_tokens)
        weights = (torch.arange(ids.shape[1], device=ids.device) < num_tokens[:, None])[..., None].to(states.dtype)
        mean = (states * weights).sum(1).float() / num_tokens.clamp(min=1)[:, None]
        return F.normalize(mean, dim=-1)

    def states(self, ids: Tensor, num_tokens: Tensor) -> Tensor:
        """States [n, S, T] of the tokens, of the model's own type; those of padding mean nothing."""
        attended = torch.arange(ids.shape[1], device=ids.device) < num_tokens[:, None]
        attended[:, 0] = True  # a text of no tokens would attend to nothing and turn into NaN
        tokens = ids.long().masked_fill(~attended, self._pad)
        found: Tensor = self.model(input_ids=tokens, attention_mask=attended.long()).last_hidden_state
        return found

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float32]:
        """Text vectors float32 [n, T] in the order of ``texts``; batches hold texts of like length, so little is padding."""
        ids, num_tokens = self.tokenise(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = np.argsort(-num_tokens, kind="stable")
        order = order[num_tokens[order] > 0]
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            longest = int(num_tokens[rows[0]])
            batch = torch.from_numpy(ids[rows, :longest]).to(self.device)
            vectors[rows] = self.forward(batch, torch.from_numpy(num_tokens[rows]).to(self.device)).cpu().numpy()
        self.model.train(was_training)
        return vectors

    def train_only(self, mode: TextTraining, layers: int = 1, rank: int = 8, alpha: float = 16.0) -> list[nn.Parameter]:
        """Let only part of the weights learn and return it: none, the last ``layers`` layers, an update of rank ``rank`` to
        every linear layer (LoRA, Hu et al. 2021, arXiv 2106.09685: ``W + alpha / rank * B A``, B = 0 at first), or all."""
        self.model.requires_grad_(mode == "full")
        if mode == "lora":
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0)
            self.model = get_peft_model(self.model, config)
        if mode == "last_layers":
            for layer in _layers(self.model)[-layers:]:
                layer.requires_grad_(True)
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def save(self, folder: Path) -> None:
        """Write config, weights (safetensors, float32) and tokenizer.json, to be loaded by path."""
        folder.mkdir(parents=True, exist_ok=True)
        self._hf_tokenizer.save_pretrained(str(folder))
        (folder / "tokenizer.json").write_text(self._tokenizer_json, encoding="utf-8")
        model: Any = self.model
        if hasattr(model, "merge_and_unload"):  # LoRA: one matrix each, so that who loads the folder needs no peft
            model = copy.deepcopy(model).merge_and_unload()
        if self.dtype != torch.float32:  # rounded for speed; the source still has the full weights
            model = TextEncoder.load(self.source, self.max_tokens, "float32").model
        model.save_pretrained(str(folder))


def _speakable(text: str) -> str:
    """The text without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _layers(model: nn.Module) -> list[nn.Module]:
    """The transformer's layers: the longest list of modules, whatever the architecture calls it."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])
