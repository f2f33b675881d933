"""Collapse: what counts as one, and which parts of a model are named."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import FAMILIES, LAYERS, make_pico, uneven_plan
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.data.ranking import RankingData
from hfcompress.errors import CollapseError
from hfcompress.evaluation.collapse import (
    SENSITIVITY_QUERIES,
    PartSensitivity,
    check_collapse,
    collapse_reason,
    part_sensitivities,
)
from hfcompress.evaluation.metrics import rank_correlation
from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.surgery import apply_plan
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.weights import packed_rounding
from hfcompress.report.report import Artifact, Drift, Latency, Stability

NO_DRIFT = Drift(largest=0, mean=0, swapped_share=0)


def artifact(name: str, tied: float = 0.0, kept: float | None = None, precision: str = "int8-dynamic") -> Artifact:
    return Artifact(
        name=name, path=f"{name}.onnx", runtime="onnxruntime", precision=precision, size_bytes=1, parameters=1,
        quality={"ndcg@10": 0.25}, per_query={}, agreement={}, delta=None, speedup=1, tied_share=tied,
        latency=Latency(docs_per_second=1, p50_ms=1, p95_ms=1, threads=1, batch=1, candidates=1),
        stability=Stability(pairs=4, batched=NO_DRIFT, padded=NO_DRIFT, rank_correlation=kept),
    )  # fmt: skip


TEACHER = artifact("teacher", precision="fp32")


def with_outlier(model: PreTrainedModel, number: int, attention: bool = False) -> PreTrainedModel:
    """Give a sublayer an input of 10,000 that no weight reads: same scores, and int8 has no steps left for others."""
    row = architecture_of(model.config)
    layer = encoder_layers(model)[number]
    before, after = (row.value, row.attention_output) if attention else (row.ffn_in, row.ffn_out)
    with torch.no_grad():
        layer.get_submodule(before).weight[0] = 0
        layer.get_submodule(before).bias[0] = 1e4
        layer.get_submodule(after).weight[:, 0] = 0
    return model


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (artifact("int8", tied=1.0, kept=0.0), "same score"),
        (artifact("int8", tied=0.75, kept=0.95), "75% of the neighbours in a ranking have equal scores, and 0% with"),
        (artifact("int8", kept=0.42), "rank correlation with teacher is 0.420"),
        (artifact("int8", kept=0.95, tied=0.25), None),
        (artifact("student", precision="fp32"), None),
        (artifact("student", tied=1.0, precision="fp32"), "same score"),
        (artifact("old").model_copy(update={"stability": None}), None),
    ],
)
def test_what_counts_as_a_collapse(found: Artifact, words: str | None) -> None:
    reason = collapse_reason(found, TEACHER, 0.9)
    assert reason is None if words is None else reason is not None and words in reason


def test_a_collapse_is_refused_with_its_cause() -> None:
    asked = []

    def find(found: Artifact) -> list[PartSensitivity]:
        asked.append(found.name)
        return [
            PartSensitivity("FFN of layer 3", 0.5),
            PartSensitivity("attention of layer 0", 0.89),
            PartSensitivity("word embeddings", 0.99),
        ]

    fine, bad = artifact("fine", kept=0.99), artifact("bad", kept=0.42)
    check_collapse([TEACHER, fine], "teacher", 0.9, find)
    check_collapse([TEACHER, bad], "teacher", 0.4, find)
    assert not asked
    with pytest.raises(CollapseError) as error:
        check_collapse([TEACHER, fine, bad], "teacher", 0.9, find)
    message = str(error.value)
    assert asked == ["bad"] and error.value.exit_code == 2
    for words in ("bad (bad.onnx)", "0.420", "FFN of layer 3 (0.500), attention of layer 0 (0.890).", "nDCG@10 0.25"):
        assert words in message
    assert "word embeddings" not in message
    with pytest.raises(CollapseError, match=r"No part alone quantized.*lowest for FFN of layer 3 \(0\.500\)"):
        check_collapse([TEACHER, bad], "teacher", 0.45, find)
    dead = artifact("student", tied=1.0, precision="fp32")
    with pytest.raises(CollapseError, match="prune less"):
        check_collapse([TEACHER, dead], "teacher", 0.9, find)
    assert asked == ["bad", "bad"]


def test_rank_correlation_by_hand() -> None:
    scores = [[3.0, 2.0, 1.0], [1.0, 2.0], [5.0]]
    assert rank_correlation(scores, scores) == 1
    # rho = 1 - 6 sum d^2 / (n (n^2 - 1)): 1 - 6 * 2 / 24 = 0.5 and -1.
    assert rank_correlation(scores, [[2.0, 3.0, 1.0], [2.0, 1.0], [0.0]]) == pytest.approx((0.5 - 1) / 2)
    assert rank_correlation(scores, [[1.0] * 3, [1.0, 2.0], [0.0]]) == pytest.approx(0.5)
    assert rank_correlation([[1.0, 1.0]], [[2.0, 2.0]]) == rank_correlation([[1.0]], [[2.0]]) == 1


def lists_of(data: RankingData) -> list[list[tuple[str, str]]]:
    return [data.pairs(query, documents) for query, documents in data.splits["test"].candidates.items()]


@pytest.mark.parametrize("attention", [False, True])
def test_the_part_with_an_outlier_is_the_most_sensitive(
    attention: bool, tokenizer: BertTokenizerFast, word_data: RankingData
) -> None:
    plain, model = make_pico(), with_outlier(make_pico(), 2, attention)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = part_sensitivities(model, tokenizer, lists_of(word_data))
    assert len(found) == 2 * LAYERS + 1 and found[-1].rank_correlation > 0.95
    assert found[0].name == ("attention of layer 2" if attention else "FFN of layer 2")
    assert (
        found[0].rank_correlation
        < 0.9
        < min(part.rank_correlation for part in part_sensitivities(plain, tokenizer, lists_of(word_data)))
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_sensitivities_of_pruned_models_of_every_family(family: str, tokenizer: BertTokenizerFast) -> None:
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=32)
    if family != "bert":
        copy.model_input_names = ["input_ids", "attention_mask"]
    found = part_sensitivities(
        apply_plan(make_pico(family), uneven_plan()), copy, [[("ba", "de fi"), ("ba", "go lu")]] * 2
    )
    names = {part.name for part in found}
    # What has no heads or no FFN left has nothing to round.
    assert {
        "word embeddings",
        "attention of layer 0",
        "FFN of layer 0",
        "FFN of layer 1",
        "attention of layer 2",
    } <= names
    assert "FFN of layer 2" not in names and np.isfinite([part.rank_correlation for part in found]).all()


def test_sensitivities_of_packed_weights(tokenizer: BertTokenizerFast, word_data: RankingData) -> None:
    model = make_pico()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for scope, moved in (("embeddings", {"word embeddings"}), ("all", None)):
        rounding = packed_rounding(model, WeightQuantizationConfig("sign", scope=scope))
        found = {part.name: part.rank_correlation for part in part_sensitivities(
            model, tokenizer, lists_of(word_data), rounding
        )}  # fmt: skip
        assert {name for name, kept in found.items() if kept < 1} == (moved or found.keys())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_no_more_lists_are_read_than_are_scored(tokenizer: BertTokenizerFast) -> None:
    read = []

    def lists() -> Iterator[list[tuple[str, str]]]:
        while True:
            read.append([("ba", "de fi"), ("ba", "go lu")])
            yield read[-1]

    part_sensitivities(make_pico(num_hidden_layers=1), tokenizer, lists())
    assert len(read) == SENSITIVITY_QUERIES
