"""Tokenizers are compared by what they do: another normalization, rule or prompt is refused before training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import IDENTITY, WORDS, make_pico
from datasets import Dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from hfcompress.data.lists import RankingCollator
from hfcompress.errors import ModelError, PlanError
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.models.prompts import Prompts, set_prompts
from hfcompress.models.tokenizer_agreement import PROBES, difference, probe_texts
from hfcompress.recipe import FeatureLoss
from hfcompress.training.arguments import RankingTrainingArguments
from hfcompress.training.features import check_tokenizers
from hfcompress.training.trainer import RankingDistillationTrainer
from hfcompress.vocabulary.plan import plan_vocabulary
from hfcompress.vocabulary.prune import prune_vocabulary

CHARACTERS = [chr(code) for code in range(33, 127)] + list(
    "äéöüßñçøåёййИстанбул中文漢字都京東한국어ひらカタไทย👍👩२३٣①½ﬁ\x07\u200b\u00ad"
)


def setting(part: str, value: Any) -> Callable[[PreTrainedTokenizerFast], None]:
    return lambda tokenizer: setattr(tokenizer.backend_tokenizer, part, value)


def bert(**changes: bool) -> Callable[[PreTrainedTokenizerFast], None]:
    rules = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": True, "lowercase": True, **changes}
    return setting("normalizer", normalizers.BertNormalizer(**rules))


def prompted(tokenizer: PreTrainedTokenizerFast) -> None:
    set_prompts(tokenizer, Prompts({"query": "sun "}, "query"))


CHANGES: dict[str, Callable[[PreTrainedTokenizerFast], None]] = {
    "case": bert(lowercase=False),
    "accents": bert(strip_accents=False),
    "CJK": bert(handle_chinese_chars=False),
    "control characters": bert(clean_text=False),
    "NFKC": setting(
        "normalizer",
        normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer(strip_accents=True, lowercase=True)]),
    ),
    "white space": setting("pre_tokenizer", pre_tokenizers.WhitespaceSplit()),
    "digits": setting(
        "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(True)])
    ),
    "special tokens": setting("post_processor", processors.BertProcessing(("[SEP]", 3), ("[MASK]", 4))),
    "prompt": prompted,
}  # fmt: skip


@pytest.fixture(scope="module")
def large() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with characters of many scripts, also within words."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", *WORDS]
    tokens += [token for character in dict.fromkeys(CHARACTERS) for token in (character, f"##{character}")]
    backend = Tokenizer(
        models.WordPiece({token: id_ for id_, token in enumerate(dict.fromkeys(tokens))}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", model_max_length=32, **special)
    bert()(tokenizer)
    return tokenizer


def changed(tokenizer: PreTrainedTokenizerFast, change: str) -> PreTrainedTokenizerFast:
    other = copy.deepcopy(tokenizer)
    CHANGES[change](other)
    assert other.get_vocab() == tokenizer.get_vocab()
    return other


def test_a_tokenizer_agrees_with_itself(
    large: PreTrainedTokenizerFast, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    for each in (large, tokenizer):
        each.save_pretrained(tmp_path)
        assert difference(each, copy.deepcopy(each), [("sun", "ba")]) == ""
        assert difference(each, type(each).from_pretrained(tmp_path)) == ""
    texts = probe_texts(large.get_vocab())
    assert len(texts) > len(PROBES) and any("BAN" in text for text in texts)


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_named_by_a_text(change: str, large: PreTrainedTokenizerFast) -> None:
    other = changed(large, change)
    for ours, theirs in ((large, other), (other, large)):
        with pytest.raises(ModelError, match=r"is read as.*and as"):
            check_tokenizers(ours, theirs)


@pytest.mark.parametrize("change", ["case", "accents", "prompt", "special tokens"])
def test_words_of_the_vocabulary_show_what_probes_do_not(change: str, tokenizer: BertTokenizerFast) -> None:
    """A vocabulary without most characters reads the probes as unknown, in whatever case."""
    with pytest.raises(ModelError, match="is read as"):
        check_tokenizers(tokenizer, changed(tokenizer, change))


def test_texts_of_the_training_data_show_the_rest(tokenizer: BertTokenizerFast) -> None:
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("bobobo", "ba"), other.backend_tokenizer.normalizer]
    )
    assert difference(tokenizer, other) == ""
    assert "'bobobo | fi' is read as" in difference(tokenizer, other, [("ba", "ba"), ("bobobo", "fi")])


def test_a_token_with_another_id_is_named(tokenizer: BertTokenizerFast) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["quux"])
    assert "'quux' is None and" in difference(tokenizer, other)


def trainer(tmp_path: Path, tokenizer: Any, lists: Dataset, teacher: Any = None, **options: Any) -> Any:
    return RankingDistillationTrainer(
        make_pico(seed=1),
        RankingTrainingArguments(output_dir=str(tmp_path / "out"), report_to=[]),
        data_collator=RankingCollator(tokenizer, 32),
        train_dataset=lists,
        feature_loss=FeatureLoss(hidden=1.0),
        teacher=teacher or make_pico(),
        **options,
    )


@pytest.mark.parametrize("change", ["case", "accents", "prompt"])
def test_feature_distillation_is_refused_before_training(
    change: str, tokenizer: BertTokenizerFast, lists: Dataset, tmp_path: Path
) -> None:
    trainer(tmp_path, tokenizer, lists, teacher_tokenizer=copy.deepcopy(tokenizer))
    with pytest.raises(ModelError, match=r"is read as.*for student and teacher"):
        trainer(tmp_path, tokenizer, lists, teacher_tokenizer=changed(tokenizer, change))


def test_the_tokenizer_beside_the_teacher_is_compared(
    tokenizer: BertTokenizerFast, lists: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cased = BertTokenizerFast(tokenizer.get_vocab(), do_lower_case=False, model_max_length=32)
    save_checkpoint(tmp_path / "teacher", make_pico(), cased, IDENTITY, 32)
    teacher = load_model(str(tmp_path / "teacher"))
    with pytest.raises(ModelError, match="is read as"):
        trainer(tmp_path, tokenizer, lists, teacher)
    trainer(tmp_path, load_tokenizer(str(tmp_path / "teacher")), lists, teacher)
    with caplog.at_level(logging.WARNING, "hfcompress"):
        trainer(tmp_path, tokenizer, lists)
    assert "pass teacher_tokenizer" in caplog.text


def test_texts_of_the_lists_are_compared(tokenizer: BertTokenizerFast, lists: Dataset, tmp_path: Path) -> None:
    word = lists[0]["documents"][0]
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(word, "ba"), other.backend_tokenizer.normalizer]
    )
    with pytest.raises(ModelError, match=word):
        trainer(tmp_path, tokenizer, lists, teacher_tokenizer=other)


@pytest.mark.parametrize("change", ["case", "accents", "special tokens"])
def test_a_vocabulary_plan_fits_only_a_tokenizer_that_does_the_same(change: str, tokenizer: BertTokenizerFast) -> None:
    plan = plan_vocabulary(tokenizer, ["ba de fi sun"], progress=False)
    prune_vocabulary(make_pico(), copy.deepcopy(tokenizer), plan)
    with pytest.raises(PlanError, match="another tokenizer"):
        prune_vocabulary(make_pico(), changed(tokenizer, change), plan)
