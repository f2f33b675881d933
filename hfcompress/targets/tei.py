"""Export to text-embeddings-inference: the folder that its ONNX backend opens, and candle where it can.

The ONNX backend (CPU images) opens `onnx/model.onnx` whatever the layers look like, and reads the output `logits`.
Candle (GPU images) builds stock models of a few families from `model.safetensors`. The server applies a sigmoid itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hfcompress.errors import ModelError
from hfcompress.models.architectures import architecture_of
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model
from hfcompress.rankers.load import activation_name
from hfcompress.targets.graph import SourceGraph, check_files, write_graph
from hfcompress.targets.source import GraphChoice, Source
from hfcompress.utils.files import write_text
from hfcompress.utils.json_files import read_object

GRAPH, TOKENIZER, WORDS = "onnx/model.onnx", "tokenizer.json", "tokenizer_config.json"
OUTPUT = "logits"
IMAGE = "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9"
DOCUMENTATION = "text-embeddings-inference 1.9, documentation and sources"
# Families with a classification head in candle.
CANDLE_FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "modernbert", "deberta-v2")


def runs_in_candle(source: Source) -> bool:
    """Whether candle can build the model from its weights."""
    return not source.uneven and not source.modular and source.config.model_type in CANDLE_FAMILIES


def write(source: Source, graph: SourceGraph | None, choice: GraphChoice, folder: Path) -> None:
    """Write config, tokenizer and graph; and the weights where candle can use them.

    Args:
        source: The model.
        graph: Its graph.
        choice: Why this graph.
        folder: Folder to write into.

    Raises:
        ModelError: The output of the graph has another name, or the files do not give the scores of the model.
    """
    assert graph is not None
    if runs_in_candle(source):
        model = load_model(source.name)
        save_checkpoint(folder, model, source.tokenizer, activation_name(source.config), source.max_length)
        for name in ("modules.json", "config_sentence_transformers.json"):
            (folder / name).unlink()
        config, words = (read_object(folder / name) for name in ("config.json", WORDS))
    else:
        config, words = source.config.to_diff_dict(), _tokenizer_config(source)
        write_text(folder / TOKENIZER, source.tokenizer_json(truncate=False))
        _write_json(folder / "sentence_bert_config.json", {"max_seq_length": source.max_length})
    _write_json(folder / WORDS, {**words, "padding_side": source.tokenizer.padding_side})
    _write_json(folder / "config.json", tei_config(source, config))
    path = write_graph(graph, folder / GRAPH)
    _require_output(path)
    check_files(source, graph, path, folder / TOKENIZER, activated=False)


def steps(source: Source) -> str:
    """How to run the folder, in Markdown."""
    candle = (
        "The folder also has the weights in fp32, from which the images for GPUs build the model with candle."
        if runs_in_candle(source)
        else "It runs on the CPU alone: candle, the backend of the images for GPUs, has no class for this model."
    )
    scores = (
        "`raw_scores: false`, the default, gives the scores of `rank`."
        if source.activation == "Sigmoid"
        else f"The server applies a sigmoid, and the checkpoint asks for {source.activation}: send `raw_scores: true` "
        "for the logits. The order is the same."
    )
    prompt = f"\n\nPut `{source.prompt}` before each query: the server does not." if source.prompt else ""
    return f"""```bash
docker run -p 8080:80 -v "$PWD:/model" {IMAGE} --model-id /model
curl localhost:8080/rerank -H 'Content-Type: application/json' \\
  -d '{{"query": "how to sort a list in place", "texts": ["list.sort() sorts the list in place."], "truncate": true}}'
```

{candle} {scores}{prompt}"""


def tei_config(source: Source, config: dict[str, Any]) -> dict[str, Any]:
    """The config, with what the server needs to take the model for a reranker.

    Args:
        source: The model.
        config: Its config as in `config.json`.
    """
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "_name_or_path")}
    return {
        **kept,
        "architectures": [architecture_of(source.config).model_class],
        "model_type": source.config.model_type,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "hidden_size": source.config.hidden_size,
        "num_hidden_layers": source.config.num_hidden_layers,
        "num_attention_heads": source.config.num_attention_heads,
        "max_position_embeddings": source.config.max_position_embeddings,
        "pad_token_id": source.config.pad_token_id,
    }


def _tokenizer_config(source: Source) -> dict[str, Any]:
    tokenizer = source.tokenizer
    return {
        "model_max_length": source.max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokenizer.special_tokens_map,
    }


def _require_output(path: Path) -> None:
    import onnx

    names = [value.name for value in onnx.load(path, load_external_data=False).graph.output]
    if names != [OUTPUT]:
        raise ModelError(
            "text-embeddings-inference does not find the scores in the output of this graph",
            value=names,
            expected=f"one output, {OUTPUT}",
            remedy="export the model with hfcompress, and name that graph with --file",
        )


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
