"""Export to OpenSearch: the archive that ML Commons registers as a TEXT_SIMILARITY model, and the requests for it.

ML Commons unpacks the archive, takes the only `.onnx` file at its top, and encodes each pair with `tokenizer.json`
alone. Releases before the second half of 2026 send `token_type_ids` to every model. No activation is applied to the
output.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hfcompress.models.modeling_hfcompress import CONFIG_KEY
from hfcompress.targets.graph import (
    SourceGraph,
    accept_token_types,
    check_files,
    lower_opset,
    with_activation,
    write_graph,
)
from hfcompress.targets.requests import Request, console_text
from hfcompress.targets.source import GraphChoice, Source
from hfcompress.utils.files import write_text

MODEL, TOKENIZER, REGISTER, REQUESTS = "model.onnx", "tokenizer.json", "register.json", "requests.txt"
URL = "https://HOST/{file}"  # where the user puts the archive
VERSION = "1.0.0"
DOCUMENTATION = "OpenSearch 3.9 documentation, and the sources of ML Commons (July 2026)"
FIELD, QUERY = "text", "how to sort a list in place"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same model gives the same hash


def write(source: Source, graph: SourceGraph | None, choice: GraphChoice, folder: Path) -> None:
    """Write the archive, the body of the register request, and all requests.

    Args:
        source: The model.
        graph: Its graph.
        choice: Why this graph.
        folder: Folder to write into.

    Raises:
        ModelError: The archive does not give the scores of the model.
    """
    assert graph is not None
    archive = folder / f"{source.title}.zip"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        inside = Path(name)
        words = write_text(inside / TOKENIZER, source.tokenizer_json(truncate=True))
        edits = (accept_token_types, with_activation(source.activation), lower_opset)
        path = write_graph(graph, inside / MODEL, edits)
        check_files(source, graph, path, words, activated=True)
        _zip(inside, archive)
    body = register_body(source, choice, archive)
    write_text(folder / REGISTER, json.dumps(body, indent=2) + "\n")
    write_text(folder / REQUESTS, console_text(_requests(source, body)))


def steps(source: Source) -> str:
    """How to load the files, in Markdown."""
    return f"""\
1. Put `{source.title}.zip` where the cluster can fetch it, and set `url` in `{REGISTER}` and `{REQUESTS}`.
2. Send the requests of `{REQUESTS}` one after another, in Dev Tools of OpenSearch Dashboards or with curl. The register
   and deploy requests answer with a task, whose result names the model; put its id in place of MODEL_ID.

Scores are those of `rank`: the graph applies the activation of the checkpoint ({source.activation}), since ML Commons
applies none. `tokenizer.json` truncates pairs to {source.max_length} tokens."""


def register_body(source: Source, choice: GraphChoice, archive: Path) -> dict[str, Any]:
    """The body of `POST /_plugins/_ml/models/_register`.

    Args:
        source: The model.
        choice: The exported graph.
        archive: The finished archive, whose size and hash are in the body.
    """
    left_out = ("_name_or_path", CONFIG_KEY)  # a path, and the long lists of a pruning plan
    config = {key: value for key, value in source.config.to_dict().items() if key not in left_out}
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "name": source.title,
        "version": VERSION,
        "description": f"Cross-encoder, {choice.precision}, inputs of up to {source.max_length} tokens",
        "function_name": "TEXT_SIMILARITY",
        "model_format": "ONNX",
        "model_content_size_in_bytes": archive.stat().st_size,
        "model_content_hash_value": digest,
        "model_config": {
            "model_type": source.config.model_type,
            "embedding_dimension": 1,
            "framework_type": "huggingface_transformers",
            "all_config": json.dumps(config, sort_keys=True),
        },
        "url": URL.format(file=archive.name),
    }


def _requests(source: Source, body: dict[str, Any]) -> list[Request]:
    query = source.prompt + QUERY
    settings = {"allow_registering_model_via_url": "true", "only_run_on_ml_node": "false"}
    pipeline = {
        "description": f"Rerank with {source.title}",
        "response_processors": [
            {"rerank": {"ml_opensearch": {"model_id": "MODEL_ID"}, "context": {"document_fields": [FIELD]}}}
        ],
    }
    search = {
        "query": {"match": {FIELD: QUERY}},
        "ext": {"rerank": {"query_context": {"query_text": query}}},
    }
    documents = ["list.sort() sorts the list in place.", "tuple.count() counts a value."]
    models = "/_plugins/_ml/models"
    return [
        Request(
            "PUT",
            "/_cluster/settings",
            {"persistent": {"plugins": {"ml_commons": settings}}},
            "Let the cluster fetch models by URL, and run them on any node (leave out where there are ML nodes)",
        ),
        Request("POST", f"{models}/_register", body, "Register the model; the answer has a task_id"),
        Request("GET", "/_plugins/_ml/tasks/TASK_ID", None, "Until state is COMPLETED; then it has the model_id"),
        Request("POST", f"{models}/MODEL_ID/_deploy", None, "Deploy the model"),
        Request(
            "POST",
            "/_plugins/_ml/_predict/text_similarity/MODEL_ID",
            {"query_text": query, "text_docs": documents},
            "Try it: one score for each document",
        ),
        Request("PUT", f"/_search/pipeline/{source.title}", pipeline, "A search pipeline that reranks"),
        Request("GET", f"/INDEX/_search?search_pipeline={source.title}", search, "A search with it; name your index"),
    ]


def _zip(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with path.open("rb") as content, target.open(entry, "w", force_zip64=True) as packed:
                while block := content.read(1 << 20):
                    packed.write(block)
