"""One score of a classifier with several labels: the logit of a label, or the log-odds of two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, IDENTITY, make_pico, random_inputs, uneven_plan
from modular_samples import head, write_modular
from sentence_transformers.base.modules import Dense
from torch import nn
from transformers import BertTokenizerFast

from hfcompress.errors import ModelError
from hfcompress.models.architectures import label_number, require_one_score, score_weights
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_config, load_model
from hfcompress.models.score_head import select_score
from hfcompress.models.surgery import apply_plan
from hfcompress.rankers.load import load_ranker
from hfcompress.recipe.teacher import ScoreLabel

NLI = {0: "contradiction", 1: "entailment", 2: "neutral"}
ENTAILED = ScoreLabel(label="entailment")
ODDS = ScoreLabel(label="entailment", against="contradiction")
ALL = ScoreLabel(label="entailment", log_odds=True)


def classifier(family: str = "bert") -> nn.Module:
    return make_pico(family, id2label=NLI, label2id={name: number for number, name in NLI.items()}, num_labels=3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_the_logit_or_the_log_odds(family: str) -> None:
    inputs = random_inputs(4, 9)
    with torch.inference_mode():
        logits = classifier(family)(**inputs).logits
        odds = logits.softmax(-1)[:, 1:2].log() - logits.softmax(-1)[:, :1].log()
        for score, wanted in ((ENTAILED, logits[:, 1:2]), (ODDS, odds), (ScoreLabel(label=2), logits[:, 2:])):
            model = classifier(family)
            found = select_score(model, score_weights(model.config, score))
            torch.testing.assert_close(found(**inputs).logits, wanted, atol=1e-5, rtol=0)
            assert found.config.num_labels == 1 == found.num_labels and len(found.config.id2label) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_log_odds_against_all_other_labels(family: str, tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    inputs = random_inputs(4, 9)
    with torch.inference_mode():
        chance = classifier(family)(**inputs).logits.softmax(-1)[:, 1:2]
        found = select_score(classifier(family), label_number(classifier().config, ALL, ALL.label))
        torch.testing.assert_close(found(**inputs).logits, chance.logit(), atol=1e-5, rtol=1e-5)
    assert found.config.num_labels == 1
    with pytest.raises(ModelError, match="cannot be saved"):
        save_checkpoint(tmp_path / "one", found, tokenizer, IDENTITY, 32)


def test_log_odds_of_a_classifier_on_disk(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    save_checkpoint(tmp_path / "nli", classifier(), tokenizer, IDENTITY, 32)
    save_checkpoint(tmp_path / "two", make_pico(num_labels=2), tokenizer, IDENTITY, 32)
    source = write_modular(tmp_path / "modular", tokenizer, "bert", head("mean", bias=True, norm=True, labels=3))
    inputs = random_inputs(3, 8)
    with torch.inference_mode():
        found = load_model(str(tmp_path / "nli"), score=ALL)(**inputs).logits
        torch.testing.assert_close(found, classifier()(**inputs).logits.softmax(-1)[:, 1:2].logit(), atol=1e-5, rtol=0)
        logits = [load_model(str(source), score=ScoreLabel(label=number))(**inputs).logits for number in range(3)]
        found = load_model(str(source), score=ScoreLabel(label=2, log_odds=True))(**inputs).logits
        torch.testing.assert_close(found, torch.cat(logits, 1).softmax(-1)[:, 2:].logit(), atol=1e-5, rtol=0)
        logits = make_pico(num_labels=2)(**inputs).logits
        two = load_model(str(tmp_path / "two"), score=ScoreLabel(label=0, log_odds=True))
        torch.testing.assert_close(two(**inputs).logits, logits[:, :1] - logits[:, 1:], atol=1e-6, rtol=0)
    save_checkpoint(tmp_path / "one", two, tokenizer, IDENTITY, 32)  # of two labels, a weighted sum of logits


def test_log_odds_against_several_labels_are_no_weights() -> None:
    assert score_weights(make_pico(num_labels=2).config, ScoreLabel(label=1, log_odds=True)) == [-1.0, 1.0]
    with pytest.raises(ModelError, match=r"no weighted sum.*neutral.*against.*recover\.teachers"):
        score_weights(classifier().config, ALL)


def test_a_classifier_on_disk_becomes_a_cross_encoder(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    save_checkpoint(tmp_path / "nli", apply_plan(classifier(), uneven_plan()), tokenizer, IDENTITY, 32)
    model = load_model(str(tmp_path / "nli"), score=ODDS)
    save_checkpoint(tmp_path / "one", model, tokenizer, IDENTITY, 32)
    inputs = random_inputs(3, 8)
    again = load_model(str(tmp_path / "one"))
    assert torch.equal(again(**inputs).logits, model(**inputs).logits) and again.config.problem_type is None
    with pytest.raises(ModelError, match=r"num_labels=3.*teacher\.score: \{label: neutral\}"):
        load_ranker(tmp_path / "nli")
    pairs = [("ba de", "fi ku"), ("ba", "de " * 12)]
    scores = load_ranker(tmp_path / "nli", score=ODDS).score(pairs)
    assert scores.tolist() == load_ranker(tmp_path / "one").score(pairs).tolist()
    with pytest.raises(ModelError, match="score with runtime torch"):
        load_ranker(tmp_path / "nli", "onnxruntime", score=ODDS)


def test_a_modular_classifier(tmp_path: Path, tokenizer: BertTokenizerFast) -> None:
    source = write_modular(tmp_path / "source", tokenizer, "bert", head("mean", bias=True, norm=True, labels=3))
    inputs = random_inputs(3, 8)
    with torch.inference_mode():
        first, last = (load_model(str(source), score=ScoreLabel(label=n))(**inputs).logits for n in (0, 2))
        model = load_model(str(source), score=ScoreLabel(label=2, against="LABEL_0"))
        torch.testing.assert_close(model(**inputs).logits, last - first, atol=1e-6, rtol=0)
        save_checkpoint(tmp_path / "one", model, tokenizer, IDENTITY, 32)
        assert torch.equal(load_model(str(tmp_path / "one"))(**inputs).logits, model(**inputs).logits)
    modules = head("mean", bias=True, norm=False)
    modules[-1] = Dense(24, 3, activation_function=nn.Tanh(), module_output_name="scores")
    source = write_modular(tmp_path / "tanh", tokenizer, "bert", modules)
    with pytest.raises(ModelError, match=r"4_Dense: torch\.nn\.modules\.activation\.Tanh"):
        load_model(str(source), score=ScoreLabel(label=2))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (ScoreLabel(label="Entailment"), "contradiction, entailment, neutral"),
        (ScoreLabel(label=3), "a number from 0 to 2"),
        (ScoreLabel(label=0, against="other"), "'other'"),
    ],
)
def test_unknown_labels(score: ScoreLabel, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        score_weights(classifier().config, score)


def test_a_cross_encoder_has_its_score_already(cross_encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"has one score already.*leave out score"):
        score_weights(load_config(str(cross_encoder)), ENTAILED)


def test_a_config_without_labels_is_refused() -> None:
    config = make_pico().config
    config.id2label = {}
    with pytest.raises(ModelError, match="num_labels=0"):
        require_one_score(config)
