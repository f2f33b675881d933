"""Export to Vespa: an application package with the ONNX model, its tokenizer, a schema and `services.xml`.

Vespa stores the tokens of each document without special tokens, and builds the model's input from them and those of the
query: tensors of one pair (d0[1]) and a fixed length, filled with 0. It takes a token of id 0 for the end of a text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from hfcompress.errors import ModelError
from hfcompress.models.graph_files import external_data
from hfcompress.targets.graph import SourceGraph, check_files, lower_opset, write_graph
from hfcompress.targets.source import GraphChoice, Source
from hfcompress.utils.files import write_text

logger = logging.getLogger(__name__)

GRAPH, TOKENIZER = "files/cross_encoder.onnx", "files/tokenizer.json"
SCHEMA, SERVICES, QUERY, DOCUMENT = "schemas/doc.sd", "services.xml", "query.json", "document.json"
MODEL, PROFILE, FIRST_STAGE = "cross_encoder", "reranker", "first_stage"
QUERY_TOKENS = 64
RERANK_COUNT = 25  # as in the documentation
DOCUMENTATION = "Vespa 8 documentation on cross-encoders and ONNX models, and the sources of its token functions"
# By the class of PyTorch: expressions of Vespa's ranking language.
ACTIVATION_EXPRESSIONS = {
    "Identity": "{x}",
    "Sigmoid": "sigmoid({x})",
    "Tanh": "tanh({x})",
    "LogSigmoid": "-1 * log(1 + exp(-1 * {x}))",
    "Softplus": "log(1 + exp({x}))",
    "Softsign": "{x} / (1 + fabs({x}))",
    "ReLU": "relu({x})",
}


@dataclass(frozen=True)
class PairFormat:
    """How the tokenizer joins the two texts of a pair.

    Attributes:
        start: Id of the token before the first text.
        separator: Id of the token after each text.
        separators: Number of separators between the texts: 1, or 2 as in RoBERTa.
    """

    start: int
    separator: int
    separators: int

    @property
    def special_tokens(self) -> int:
        """Number of special tokens of a pair."""
        return self.separators + 2


@dataclass(frozen=True)
class Package:
    """What the files of the application package share.

    Attributes:
        inputs: Names of the inputs of the graph.
        output: Name of its output.
        pair: How pairs are joined.
        length: Length of the model's input.
        query_tokens: Most tokens of a query.
        expression: The score of a document, as a ranking expression.
    """

    inputs: tuple[str, ...]
    output: str
    pair: PairFormat
    length: int
    query_tokens: int
    expression: str

    @property
    def document_tokens(self) -> int:
        """Most tokens of a document: the input always has its last separator."""
        return self.length - self.query_tokens - self.pair.special_tokens

    @property
    def functions(self) -> dict[str, str]:
        """Ranking expressions by the names of functions: the inputs of the graph."""
        texts = ["query(q_tokens)", *["no_tokens"] * (self.pair.separators - 1), "attribute(tokens)"]
        joined = f"{self.length}, {', '.join(texts)}"
        found = {
            "input_ids": f"customTokenInputIds({self.pair.start}, {self.pair.separator}, {joined})",
            "attention_mask": f"tokenAttentionMask({joined})",
            "token_type_ids": f"tokenTypeIds({joined})",
        }
        empty = {"no_tokens": "tensor<float>(d0[1]):[0]"} if self.pair.separators > 1 else {}
        return empty | {name: found[name] for name in self.inputs}


def check(source: Source) -> None:
    """Check that Vespa can build the input of the model.

    Raises:
        ModelError: It cannot.
    """
    pair_format(source)


def write(source: Source, graph: SourceGraph | None, choice: GraphChoice, folder: Path) -> None:
    """Write the application package.

    Args:
        source: The model.
        graph: Its graph.
        choice: Why this graph.
        folder: Folder to write into.

    Raises:
        ModelError: The graph has weights in another file, or the files do not give the scores of the model.
    """
    assert graph is not None
    if data := external_data(graph.path):
        raise ModelError(
            "Vespa distributes a model as one file, and the weights of this graph are in another",
            value=", ".join(path.name for path in data),
            expected="a graph of less than 2 GB",
            remedy="name an int8 graph with --file",
        )
    path = write_graph(graph, folder / GRAPH, [lower_opset])
    words = write_text(folder / TOKENIZER, source.tokenizer_json(truncate=False))
    check_files(source, graph, path, words, activated=False)
    _warn_of_token_zero(source)
    package = package_of(source, path)
    write_text(folder / SCHEMA, schema_text(package))
    write_text(folder / SERVICES, services_text(package))
    for name, content in ((QUERY, _query(source)), (DOCUMENT, _document())):
        write_text(folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def steps(source: Source) -> str:
    """How to load the files, in Markdown."""
    return f"""```bash
vespa deploy --wait 300
vespa document {DOCUMENT}
vespa query --file {QUERY}
```

To add the model to an application of your own, copy `files/`, the component of `{SERVICES}`, and field, model and rank
profile of `{SCHEMA}`. Scores are those of `rank`: the rank profile applies the activation of the checkpoint
({source.activation}).

Vespa computes every pair at the full length of {source.max_length} tokens. Export with `--max-length` set to what your
texts need: half the length takes less than half the time."""


def pair_format(source: Source) -> PairFormat:
    """How the tokenizer of a model joins pairs.

    Raises:
        ModelError: Vespa has no function that joins them so.
    """
    row = source.tokenizer.backend_tokenizer.encode("a", "a")
    inside = [place for place, text in enumerate(row.sequence_ids) if text is not None]
    first = [place for place in inside if row.sequence_ids[place] == 0]
    second = [place for place in inside if row.sequence_ids[place] == 1]
    if first and second:
        before, after = row.ids[: first[0]], row.ids[second[-1] + 1 :]
        between = row.ids[first[-1] + 1 : second[0]]
        usual_types = len(between) == 1 or "token_type_ids" not in source.tokenizer.model_input_names
        if len(before) == len(after) == 1 and {*between} == {*after} and len(between) in (1, 2) and usual_types:
            return PairFormat(before[0], after[0], len(between))
    raise ModelError(
        "Vespa cannot build the input of this model",
        value=f"a pair as tokens: {' '.join(row.tokens)}",
        expected="a start token, the query, one or two separators, the document, the same separator",
        remedy="export to another target",
    )


def package_of(source: Source, graph: Path) -> Package:
    """What the files of the package share, read from a model and its graph.

    Args:
        source: The model.
        graph: The `.onnx` file.
    """
    read = onnx.load(graph, load_external_data=False).graph
    length = source.max_length
    score = f"onnx({MODEL}).{read.output[0].name}{{d0:0,d1:0}}"
    return Package(
        tuple(value.name for value in read.input),
        read.output[0].name,
        pair_format(source),
        length,
        min(QUERY_TOKENS, length // 4),
        ACTIVATION_EXPRESSIONS[source.activation].format(x=score),
    )


def schema_text(package: Package) -> str:
    """The schema: a text, its tokens, the model, and a rank profile that reranks with it."""
    return "\n".join(
        [
            "schema doc {",
            "    document doc {",
            "        field text type string {",
            "            indexing: index | summary",
            "            index: enable-bm25",
            "        }",
            "    }",
            f"    field tokens type tensor<float>(d0[{package.document_tokens}]) {{",
            "        indexing: input text | embed tokenizer | attribute",
            "    }",
            "    fieldset default {",
            "        fields: text",
            "    }",
            f"    onnx-model {MODEL} {{",
            f"        file: {GRAPH}",
            *(f"        input {name}: {name}" for name in package.inputs),
            f"        output {package.output}: {package.output}",
            "    }",
            f"    rank-profile {FIRST_STAGE} {{",
            *_block("first-phase", "bm25(text)"),
            "    }",
            f"    rank-profile {PROFILE} inherits {FIRST_STAGE} {{",
            "        inputs {",
            f"            query(q_tokens) tensor<float>(d0[{package.query_tokens}])",
            "        }",
            *(line for name, text in package.functions.items() for line in _block(f"function {name}()", text)),
            *_block("global-phase", package.expression, [f"rerank-count: {RERANK_COUNT}"]),
            "    }",
            "}",
            "",
        ]
    )


def services_text(package: Package) -> str:
    """`services.xml` of an application on one node."""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<services version="1.0">
  <container id="default" version="1.0">
    <search/>
    <document-api/>
    <document-processing/>
    <component id="tokenizer" type="hugging-face-tokenizer">
      <model path="{TOKENIZER}"/>
      <special-tokens>false</special-tokens>
      <max-length>{package.document_tokens}</max-length>
      <truncation>true</truncation>
    </component>
  </container>
  <content id="content" version="1.0">
    <min-redundancy>1</min-redundancy>
    <documents>
      <document type="doc" mode="index"/>
    </documents>
    <nodes>
      <node distribution-key="0" hostalias="node1"/>
    </nodes>
  </content>
</services>
"""


def _block(head: str, expression: str, more: Iterable[str] = ()) -> list[str]:
    lines = [f"{head} {{", "    expression {", f"        {expression}", "    }", *(f"    {line}" for line in more), "}"]
    return [f"        {line}" for line in lines]


def _query(source: Source) -> dict[str, Any]:
    text = "how to sort a list in place"
    own = {"rerank_query": source.prompt + text} if source.prompt else {}
    return {
        "yql": "select * from doc where userQuery()",
        "query": text,
        **own,
        "input.query(q_tokens)": f"embed(tokenizer, @{'rerank_query' if own else 'query'})",
        "ranking": PROFILE,
    }


def _document() -> dict[str, Any]:
    return {"put": "id:doc:doc::1", "fields": {"text": "list.sort() sorts the list in place."}}


def _warn_of_token_zero(source: Source) -> None:
    token = source.tokenizer.convert_ids_to_tokens(0)
    if token not in source.tokenizer.all_special_tokens:
        logger.warning("Vespa takes the token %r, which has id 0, for the end of a text", token)
