"""Read the tokenizer of a model, and choose the padding token of one that names none."""

from __future__ import annotations

import logging
from pathlib import Path

from tokenizers.models import WordLevel, WordPiece
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.config import not_found
from hfcompress.models.layout import TOKENIZER_FILES
from hfcompress.utils.json_files import damaged, one_line, read_object, require_content
from hfcompress.utils.log import warn_once

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"
PADDING_TOKENS = ("[PAD]", "<pad>")
SENTENCEPIECE_FILES = ("spm.model", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
# What tokenizer classes of transformers raise for files that they cannot use.
TOKENIZER_FAULTS = (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, ImportError)


def read_tokenizer(source: str) -> PreTrainedTokenizerFast:
    """Read the fast tokenizer of a model.

    Args:
        source: A folder or Hub id.

    Raises:
        ModelError: There is none, it has no fast form, or one of its files is damaged.
    """
    folder = Path(source)
    _check_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:
        # `tokenizers` raises Exception itself for what it cannot parse, such as an unknown pre-tokenizer.
        if type(error) is not Exception and not isinstance(error, TOKENIZER_FAULTS):
            raise
        raise _unusable(source, error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            "The model has no fast tokenizer",
            value=type(tokenizer).__name__,
            expected="a model with tokenizer.json",
            remedy="convert the tokenizer with transformers and save it beside the model",
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one if there is no file
        raise _without_vocabulary(folder) or ModelError(
            "The model has no tokenizer",
            value=source,
            expected="tokenizer.json beside config.json",
            remedy="save the tokenizer into the model's folder",
        )
    _check_length(source, tokenizer)
    _check_unknown_token(source, tokenizer)
    return tokenizer


def has_tokenizer(source: str) -> bool:
    """Whether a folder has files of a tokenizer; a model on the Hub is taken to have one."""
    return not Path(source).is_dir() or any(Path(source, name).is_file() for name in TOKENIZER_FILES)


def choose_padding(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Give a padding token to a tokenizer that names none, or one without an embedding.

    This is the model's own padding token, else a token of the usual name, else the end-of-sequence token, as pipelines
    of transformers choose it, or the separator. Padding is masked, so the scores do not depend on the choice.

    Args:
        tokenizer: The tokenizer; changed in place.
        config: Config of the model.

    Raises:
        ModelError: The tokenizer has none of these tokens.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id < config.vocab_size:
        return
    backend = tokenizer.backend_tokenizer
    own = None if config.pad_token_id is None else backend.id_to_token(config.pad_token_id)
    names = (own, *PADDING_TOKENS, tokenizer.eos_token, tokenizer.sep_token)
    ids = [(backend.token_to_id(name), name) for name in names if name]
    token = next((name for number, name in ids if number is not None and number < config.vocab_size), None)
    if token is None:
        raise _no_padding(tokenizer)
    tokenizer.pad_token = token


def require_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer can pad a batch.

    Raises:
        ModelError: It names no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise _no_padding(tokenizer)


def check_vocabulary(source: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Check that the tokens which a tokenizer produces have embeddings.

    A vocabulary that covers less than half of the embeddings is logged as a warning: its file may be truncated.

    Args:
        source: Name of the model, for the messages.
        tokenizer: The tokenizer.
        config: Config of the model.

    Raises:
        ModelError: A token has no embedding.
    """
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id)
    largest = max(tokenizer.vocab_size - 1, *(number for number in special if number is not None), 0)
    if largest >= config.vocab_size:
        raise ModelError(
            f"The tokenizer of {source} does not fit the model",
            value=f"token ids up to {largest}",
            expected=f"ids below vocab_size={config.vocab_size}, the number of the model's embeddings",
            remedy="use tokenizer, config.json and weights from the same save of the model",
        )
    if 2 * len(tokenizer) < config.vocab_size:
        warn_once(
            logger,
            f"The tokenizer of {source} has {len(tokenizer)} tokens and the model {config.vocab_size} embeddings: "
            "check that its vocabulary is complete",
        )


def _check_files(folder: Path) -> None:
    for name in (*TOKENIZER_FILES, *SENTENCEPIECE_FILES):
        path = folder / name
        if path.is_file():
            read_object(path) if path.suffix == ".json" else require_content(path)


def _check_length(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    length = tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= 1:
        raise damaged(
            Path(source, "tokenizer_config.json"),
            f"model_max_length {length!r}",
            "a number of tokens above 0, or null",
            "correct this setting",
        )


def _check_unknown_token(source: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that unknown words have a token: a WordPiece model without one fails at the first such word."""
    model = tokenizer.backend_tokenizer.model
    if isinstance(model, (WordPiece, WordLevel)) and model.token_to_id(model.unk_token) is None:
        raise damaged(
            Path(source, TOKENIZER_FILE),
            f"unk_token {tokenizer.unk_token!r}",
            "a token of the vocabulary, for unknown words",
            "correct unk_token in tokenizer_config.json, special_tokens_map.json or tokenizer.json",
        )


def _unusable(source: str, error: Exception) -> ModelError:
    """The error for a tokenizer that transformers cannot open."""
    folder = Path(source)
    missing = _without_vocabulary(folder)
    if missing:
        return missing
    found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not found:
        return not_found("tokenizer", TOKENIZER_FILE, source, error)
    return ModelError(
        f"The tokenizer in {folder} cannot be used",
        value=one_line(error),
        expected=f"files of one tokenizer that the installed transformers reads; these were read: {', '.join(found)}",
        remedy="correct or restore them, update transformers and tokenizers if a newer version saved them, or save the "
        "tokenizer anew",
    )


def _without_vocabulary(folder: Path) -> ModelError | None:
    """The error for a folder with only the SentencePiece model of a slow tokenizer."""
    slow = [name for name in SENTENCEPIECE_FILES if (folder / name).is_file()]
    if not slow or (folder / TOKENIZER_FILE).is_file():
        return None
    return ModelError(
        "The model has only a slow tokenizer",
        value=f"{slow[0]} without {TOKENIZER_FILE}",
        expected=f"{TOKENIZER_FILE}, the fast form of the tokenizer",
        remedy="run `pip install sentencepiece protobuf`, then convert it: transformers.AutoTokenizer.from_pretrained("
        "FOLDER).save_pretrained(FOLDER)",
    )


def _no_padding(tokenizer: PreTrainedTokenizerBase) -> ModelError:
    return ModelError(
        "The tokenizer has no padding token",
        value=f"pad_token=None in {type(tokenizer).__name__}",
        expected=f"a pad_token, a token {' or '.join(PADDING_TOKENS)}, or an end-of-sequence or separator token",
        remedy="set tokenizer.pad_token to a token of the vocabulary, and save the tokenizer with the model",
    )
