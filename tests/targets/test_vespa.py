"""The application package for Vespa: its functions build the model's input, with the types that its graph takes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from target_samples import PAIRS
from tokenizers import Tokenizer
from tokenizers.processors import ByteLevel

from hfcompress.errors import ModelError
from hfcompress.rankers.load import load_ranker
from hfcompress.targets.export import export
from hfcompress.targets.source import read_source
from hfcompress.targets.vespa import pair_format

LENGTH, QUERY, DOCUMENT = 32, 8, 21


def read_schema(text: str) -> tuple[dict[str, str], dict[str, int]]:
    """Expressions of the functions and phases, and the sizes of the tensors of tokens."""
    blocks = re.findall(r"(?:function (\w+)\(\)|([\w-]+-phase)) {\s+expression {\s+(.*)\n", text)
    sizes = dict(re.findall(r"(tokens|query\(q_tokens\))(?: type)? tensor<float>\(d0\[(\d+)\]\)", text))
    return {function or phase: expression for function, phase, expression in blocks}, {
        name: int(size) for name, size in sizes.items()
    }


def embed(tokenizer: Tokenizer, text: str, size: int) -> np.ndarray:
    """Tokens as Vespa's embedder gives them: without special tokens, filled with 0, cut at the size of the tensor."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:size]
    return np.array(ids + [0] * (size - len(ids)), dtype=np.float32)


def token_inputs(expressions: dict[str, str], texts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Evaluate the token functions by their definition in Vespa's documentation: shape (1, length), from floats."""
    found = {}
    for name, expression in expressions.items():
        if name not in ("input_ids", "attention_mask", "token_type_ids"):
            continue
        function, given = re.fullmatch(r"(\w+)\((.*)\)", expression).groups()  # type: ignore[union-attr]
        arguments = given.split(", ")
        start, separator = map(int, arguments[:2]) if function == "customTokenInputIds" else (0, 0)
        length, *parts = arguments[2:] if function == "customTokenInputIds" else arguments
        ids, types = [start], [0]
        for number, part in enumerate(parts):
            tokens = texts[part][: int((texts[part] > 0).sum())]
            ids += [*tokens, separator]
            types += [min(number, 1)] * (len(tokens) + 1)
        values = {"customTokenInputIds": ids, "tokenTypeIds": types, "tokenAttentionMask": [1] * len(ids)}[function]
        row = (values + [0] * int(length))[: int(length)]
        found[name] = np.array([row], dtype=np.float32)
    return found


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_rank_profile_scores_as_rank(family: str, encoder: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = encoder(family), tmp_path / "out"
    export(str(folder), "vespa", out)
    expressions, sizes = read_schema((out / "schemas/doc.sd").read_text())
    separators = 2 if family == "roberta" else 1
    assert sizes == {"tokens": DOCUMENT - (separators - 1), "query(q_tokens)": QUERY}
    assert sizes["tokens"] + QUERY + separators + 2 == LENGTH  # the last separator is never cut off
    assert expressions["global-phase"] == "sigmoid(onnx(cross_encoder).logits{d0:0,d1:0})"
    session = onnxruntime.InferenceSession(str(out / "files/cross_encoder.onnx"))
    words = Tokenizer.from_file(str(out / "files/tokenizer.json"))
    ranker = load_ranker(folder, file="onnx/model.onnx")
    for query, document in PAIRS[:3]:
        texts = {
            "query(q_tokens)": embed(words, query, sizes["query(q_tokens)"]),
            "attribute(tokens)": embed(words, document, sizes["tokens"]),
            "no_tokens": np.zeros(1, dtype=np.float32),
        }
        inputs = token_inputs(expressions, texts)
        assert {name: value.shape for name, value in inputs.items()} == {
            node.name: (1, LENGTH) for node in session.get_inputs()
        }
        (output,) = session.run(None, {name: value.astype(np.int64) for name, value in inputs.items()})
        assert output.shape == (1, 1)  # d0 is the batch, d1 the score
        score = 1 / (1 + np.exp(-float(output[0, 0])))
        assert score == pytest.approx(ranker.rank(query, [document])[0].score, abs=1e-4)


def test_special_tokens_are_those_of_the_tokenizer(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    export(str(encoder("bert")), "vespa", tmp_path / "out")
    expressions, _ = read_schema((tmp_path / "out/schemas/doc.sd").read_text())
    # Not tokenInputIds, which has 101 and 102: ids change where the vocabulary is pruned.
    assert expressions["input_ids"] == "customTokenInputIds(2, 3, 32, query(q_tokens), attribute(tokens))"
    export(str(encoder("roberta")), "vespa", tmp_path / "other")
    expressions, _ = read_schema((tmp_path / "other/schemas/doc.sd").read_text())
    assert "token_type_ids" not in expressions and expressions["no_tokens"] == "tensor<float>(d0[1]):[0]"


def test_the_package_is_complete(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(str(encoder("bert")), "vespa", out, max_length=16)
    services = ET.parse(out / "services.xml").getroot()
    (component,) = services.iter("component")
    assert component.get("type") == "hugging-face-tokenizer" and component.get("id") == "tokenizer"
    assert component.findtext("special-tokens") == "false" and component.findtext("truncation") == "true"
    model = component.find("model")
    assert model is not None and (out / str(model.get("path"))).is_file()
    schema = (out / "schemas/doc.sd").read_text()
    _, sizes = read_schema(schema)
    assert sizes == {"tokens": 9, "query(q_tokens)": 4} and component.findtext("max-length") == "9"
    assert [document.get("type") for document in services.iter("document")] == ["doc"]
    graph = onnx.load(out / "files/cross_encoder.onnx")
    assert graph.opset_import[0].version == 18
    assert re.findall(r"input (\w+): (\w+)", schema) == [(value.name,) * 2 for value in graph.graph.input]
    query = json.loads((out / "query.json").read_text())
    assert query["input.query(q_tokens)"] == "embed(tokenizer, @query)" and query["ranking"] == "reranker"
    assert set(json.loads((out / "document.json").read_text())["fields"]) == {"text"}


def test_pairs_that_vespa_cannot_join_are_refused(cross_encoder: Path) -> None:
    source = read_source(str(cross_encoder))
    assert pair_format(source).special_tokens == 3
    source.tokenizer.backend_tokenizer.post_processor = ByteLevel()
    with pytest.raises(ModelError, match=r"cannot build the input.*Remedy: export to another target"):
        pair_format(source)


def test_pyvespa_builds_the_same_schema(encoder: Callable[[str], Path], tmp_path: Path) -> None:
    package = pytest.importorskip("vespa.package", reason="pyvespa is not installed")
    export(str(encoder("bert")), "vespa", tmp_path / "out")
    text = (tmp_path / "out/schemas/doc.sd").read_text()
    expressions, sizes = read_schema(text)
    names = ("input_ids", "attention_mask", "token_type_ids")
    fields = [
        package.Field("text", "string", ["index", "summary"], "enable-bm25"),
        package.Field(
            "tokens",
            f"tensor<float>(d0[{sizes['tokens']}])",
            ["input text", "embed tokenizer", "attribute"],
            is_document_field=False,
        ),
    ]
    graph = str(tmp_path / "out/files/cross_encoder.onnx")
    schema = package.Schema(
        "doc",
        package.Document(fields),
        fieldsets=[package.FieldSet("default", ["text"])],
        models=[package.OnnxModel("cross_encoder", graph, {name: name for name in names}, {"logits": "logits"})],
        rank_profiles=[
            package.RankProfile("first_stage", expressions["first-phase"]),
            package.RankProfile(
                "reranker",
                inherits="first_stage",
                inputs=[("query(q_tokens)", f"tensor<float>(d0[{sizes['query(q_tokens)']}])")],
                functions=[package.Function(name, expressions[name]) for name in names],
                global_phase=package.GlobalPhaseRanking(expressions["global-phase"], rerank_count=25),
            ),
        ],
    )
    assert text.split() == schema.schema_to_text.split()
