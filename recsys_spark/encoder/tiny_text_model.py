"""A text model of a few hundred kilobytes, built in code from a seed: tests and debug runs need no download."""

from __future__ import annotations

import string
from typing import Any

import torch

WIDTH = 32
LAYERS = 2
HEADS = 2
MAX_POSITIONS = 512
SEED = 20_240_229
_PAD, _UNKNOWN, _START, _END = _SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def _vocabulary() -> dict[str, int]:
    """Every byte (no text is unknown) and every pair of a-z and 0-9, at the start of a word and inside it."""
    from tokenizers.pre_tokenizers import ByteLevel

    pairs = [a + b for a in string.ascii_lowercase + string.digits for b in string.ascii_lowercase + string.digits]
    pieces = sorted(ByteLevel.alphabet()) + pairs
    words = [*_SPECIAL, *pieces, *(f"##{piece}" for piece in pieces)]
    return {word: number for number, word in enumerate(words)}


def build_tokenizer() -> Any:
    """A Hugging Face fast tokenizer: lower case, words, then pieces of one or two letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = _vocabulary()
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_UNKNOWN, max_input_chars_per_word=1_000))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(_START, vocabulary[_START]), (_END, vocabulary[_END])]
    )
    names = {"pad_token": _PAD, "unk_token": _UNKNOWN, "cls_token": _START, "sep_token": _END}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_POSITIONS, **names)


def build_model() -> Any:
    """A BERT of 2 layers, 32 wide, with the same random weights in every process."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=MAX_POSITIONS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():  # words decide, not places: else all vectors of a random model look alike
        model.embeddings.position_embeddings.weight.mul_(0.1)
        model.embeddings.token_type_embeddings.weight.mul_(0.1)
    return model.eval()
