"""Cross-encoders to export, and readers of what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from conftest import IDENTITY, SIGMOID, WORDS, make_pico, uneven_plan
from tokenizers import Tokenizer
from tokenizers.processors import RobertaProcessing
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.onnxruntime import INPUTS, SLOW_FUSIONS

# Lengths differ, and the last is longer than the input of 32 tokens.
PAIRS = [
    ("ba de fi", " ".join(WORDS[:5])),
    ("ba de fi", WORDS[7]),
    ("ba", " ".join(WORDS[3:12])),
    ("ba de", " ".join(WORDS[:60])),
]


def write_encoder(folder: Path, tokenizer: BertTokenizerFast, family: str = "bert", activation: str = SIGMOID) -> Path:
    """Save a pico cross-encoder.

    Args:
        folder: Folder to write.
        tokenizer: Tokenizer of BERT.
        family: Its family. RoBERTa has two separators between the texts of a pair, and no token types. `uneven` is a
            pruned BERT without activation.
        activation: Full name of its activation.
    """
    if family == "uneven":
        save_checkpoint(folder, apply_plan(make_pico(), uneven_plan()), tokenizer, IDENTITY, 32)
        return folder
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy: PreTrainedTokenizerFast = BertTokenizerFast(tokenizer_object=backend)
    if family == "roberta":
        start, end = ((token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]"))
        backend.post_processor = RobertaProcessing(end, start, add_prefix_space=False)
        copy = PreTrainedTokenizerFast(tokenizer_object=backend, **tokenizer.special_tokens_map)
    if family != "bert":
        copy.model_input_names = ["input_ids", "attention_mask"]
    changes = {"type_vocab_size": 1} if family == "roberta" else {}
    few = {"n_layers": 2} if family == "distilbert" else {"num_hidden_layers": 2}  # since an export takes seconds
    save_checkpoint(folder, make_pico(family, **changes, **few), copy, activation, 32)
    return folder


def console_requests(text: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    """The requests of a text for a console, as method, path and body."""
    found: list[tuple[str, str, dict[str, Any] | None]] = []
    for part in text.strip().split("\n\n"):
        comment, line, *body = part.split("\n")
        assert comment.startswith("# ")
        method, path = line.split(" ")
        found.append((method, path, json.loads("\n".join(body)) if body else None))
    return found


def run_files(graph: Path, tokenizer: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Scores by the written files, a pair at a time."""
    session = onnxruntime.InferenceSession(str(graph), disabled_optimizers=list(SLOW_FUSIONS))
    words, scores = Tokenizer.from_file(str(tokenizer)), []
    for query, document in pairs:
        row = words.encode(query, document)
        features = dict(zip(INPUTS, (row.ids, row.attention_mask, row.type_ids), strict=True))
        names = [node.name for node in session.get_inputs()]
        (output,) = session.run(None, {name: np.array([features[name]], dtype=np.int64) for name in names})
        assert output.shape == (1, 1) and output.dtype == np.float32
        scores.append(output[0, 0])
    return np.array(scores)
