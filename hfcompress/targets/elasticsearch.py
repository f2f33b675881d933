"""Export to Elasticsearch: a checkpoint that Eland uploads, and the requests for it.

Eland opens the checkpoint with stock classes of transformers and their tokenizers in Python, which read vocabulary
files beside `tokenizer.json`. Elasticsearch runs the model in PyTorch, in fp32, and rewrites its logit s as
max(s, 0) + min(exp(s), 1).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hfcompress.errors import ModelError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model
from hfcompress.rankers.load import activation_name
from hfcompress.targets.graph import SourceGraph
from hfcompress.targets.requests import Request, console_text
from hfcompress.targets.source import GraphChoice, Source, require_even
from hfcompress.utils.files import write_text

MODEL, UPLOAD, REQUESTS = "model", "upload.sh", "requests.txt"
FIELD, QUERY = "text", "how to sort a list in place"
DOCUMENTATION = "Elasticsearch 9 documentation, and Eland 9"
WINDOW = 50  # documents to rerank
# By family: the tokenizer class that Eland knows, and the model of `tokenizer.json` from which its files are written.
WORDPIECE = {
    "bert": "BertTokenizer", "distilbert": "DistilBertTokenizer", "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
}  # fmt: skip
BPE = {"roberta": "RobertaTokenizer"}
# Families whose tokenizers read a model of SentencePiece, which cannot be written from `tokenizer.json`.
SENTENCEPIECE = {
    "xlm-roberta": ("XLMRobertaTokenizer", "sentencepiece.bpe.model"),
    "deberta-v2": ("DebertaV2Tokenizer", "spm.model"),
}


def check(source: Source) -> None:
    """Check that Eland can open the model.

    Raises:
        ModelError: It has no class for the model or its tokenizer.
    """
    require_even(source, "Eland")
    family = source.config.model_type
    if family in SENTENCEPIECE:
        name = SENTENCEPIECE[family][1]
        if (source.folder / name).is_file():
            return
        raise _no_tokenizer(source, f"no {name} in the folder", f"copy {name} of the original model into the folder")
    wanted = "WordPiece" if family in WORDPIECE else "BPE" if family in BPE else None
    if wanted is None:
        raise _no_tokenizer(source, f"the family {family}", "export to opensearch, vespa or tei")
    found = _tokenizer_model(source)["type"]
    if found != wanted:
        raise _no_tokenizer(source, f"a {found} tokenizer in the family {family}", "export to another target")


def write(source: Source, graph: SourceGraph | None, choice: GraphChoice, folder: Path) -> None:
    """Write the checkpoint, the command that uploads it, and the requests.

    Args:
        source: The model.
        graph: None, since Eland reads no graph.
        choice: Not used.
        folder: Folder to write into.
    """
    model = load_model(source.name, dtype="float32")
    save_checkpoint(folder / MODEL, model, source.tokenizer, activation_name(source.config), source.max_length)
    _write_vocabulary(source, folder / MODEL)
    script = write_text(folder / UPLOAD, _upload(source))
    script.chmod(0o755)
    write_text(folder / REQUESTS, console_text(_requests(source)))


def steps(source: Source) -> str:
    """How to load the files, in Markdown."""
    return f"""\
1. `pip install 'eland[pytorch]'` in an environment of its own: Eland needs older versions of PyTorch and transformers.
2. `ELASTICSEARCH_URL=https://HOST:9200 ELASTICSEARCH_API_KEY=... ./{UPLOAD}`
3. Send the requests of `{REQUESTS}` in the console of Kibana.

Elasticsearch rewrites the logit s of each document as max(s, 0) + min(exp(s), 1), so that no score is negative: a score
of 1 or more stands for s = score - 1, and one below 1 for s = ln(score). The order is that of `rank`."""


def _write_vocabulary(source: Source, folder: Path) -> None:
    """Write the files and settings of the tokenizer in Python."""
    family, model = source.config.model_type, _tokenizer_model(source)
    settings: dict[str, Any] = {}
    if family in SENTENCEPIECE:
        name, file = SENTENCEPIECE[family]
        shutil.copyfile(source.folder / file, folder / file)
    elif family in BPE:
        name = BPE[family]
        write_text(folder / "vocab.json", json.dumps(model["vocab"], ensure_ascii=False) + "\n")
        pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *pairs]) + "\n")
    else:
        name = WORDPIECE[family]
        words = sorted(source.tokenizer.get_vocab().items(), key=lambda item: item[1])
        write_text(folder / "vocab.txt", "\n".join(word for word, _ in words) + "\n")
        normalizer = json.loads(source.tokenizer_json(truncate=False))["normalizer"] or {}
        settings = {
            "do_lower_case": bool(normalizer.get("lowercase")),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": bool(normalizer.get("handle_chinese_chars", True)),
        }
    path = folder / "tokenizer_config.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept.pop("backend", None)
    write_text(path, json.dumps({**kept, **settings, "tokenizer_class": name}, indent=2) + "\n")


def _tokenizer_model(source: Source) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(source.tokenizer_json(truncate=False))["model"]
    return model


def _upload(source: Source) -> str:
    return f"""#!/bin/sh
# Uploads the model with Eland. ELASTICSEARCH_URL and ELASTICSEARCH_API_KEY name the cluster and a key for it.
set -eu
cd "$(dirname "$0")"
eland_import_hub_model \\
  --url "$ELASTICSEARCH_URL" \\
  --es-api-key "$ELASTICSEARCH_API_KEY" \\
  --hub-model-id ./{MODEL} \\
  --es-model-id {source.title} \\
  --task-type text_similarity
"""


def _requests(source: Source) -> list[Request]:
    endpoint = {
        "service": "elasticsearch",
        "service_settings": {"model_id": source.title, "num_allocations": 1, "num_threads": 1},
    }
    search = {
        "retriever": {
            "text_similarity_reranker": {
                "retriever": {"standard": {"query": {"match": {FIELD: QUERY}}}},
                "field": FIELD,
                "inference_id": source.title,
                "inference_text": source.prompt + QUERY,
                "rank_window_size": WINDOW,
            }
        }
    }
    return [
        Request("PUT", f"/_inference/rerank/{source.title}", endpoint, "An endpoint, which deploys the model"),
        Request("GET", "/INDEX/_search", search, "A search that reranks; name your index and its field"),
    ]


def _no_tokenizer(source: Source, value: str, remedy: str) -> ModelError:
    return ModelError(
        "Eland cannot open the tokenizer of this model",
        value=f"{source.name}: {value}",
        expected=f"a model of the families {', '.join(sorted(WORDPIECE | BPE | SENTENCEPIECE))} with "
        "their own tokenizer",
        remedy=remedy,
    )
