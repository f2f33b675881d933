"""Vocabulary plans: which tokens are kept, for which reason, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from vocabulary_samples import CORPUS, small_plan, tokenizer_of

from hfcompress.errors import DataError, PlanError
from hfcompress.vocabulary.plan import plan_vocabulary


def test_counts_and_reasons() -> None:
    tokenizer = tokenizer_of("bert")
    plan = plan_vocabulary(tokenizer, (text for text in ["walking walk walk", "readings"]), 2, progress=False)
    counts = dict(zip(tokenizer.convert_ids_to_tokens(list(plan.kept)), plan.counts, strict=True))
    pieces = Counter(tokenizer.tokenize("walking walk walk") + tokenizer.tokenize("readings"))
    assert {token: count for token, count in counts.items() if count} == {
        token: count for token, count in pieces.items() if count > 1 or len(token.removeprefix("##")) == 1
    }
    assert plan.texts == 2 and plan.occurrences == sum(pieces.values())
    assert sum(plan.kept_for.values()) == len(plan.kept) and plan.size == len(tokenizer)
    assert "[unused0]" not in counts and "[MASK]" in counts


def test_single_characters_in_both_forms_or_those_of_the_corpus() -> None:
    tokenizer = tokenizer_of("bert")
    single = {token for token in tokenizer.get_vocab() if len(token.removeprefix("##")) == 1}
    assert {"w", "##g", "東", "##и"} <= single
    kept = {
        choice: set(tokenizer.convert_ids_to_tokens(list(small_plan(tokenizer, characters=choice).kept)))
        for choice in ("all", "corpus")
    }
    assert single <= kept["all"]
    assert kept["corpus"] < kept["all"]
    assert {"w", "##g", "東"} <= kept["corpus"] and not {"и", "##и", "幸"} & kept["corpus"]


def test_words_and_tokens_to_keep() -> None:
    tokenizer = tokenizer_of("roberta")
    few = plan_vocabulary(tokenizer, ["x"], progress=False)
    more = plan_vocabulary(tokenizer, ["x"], keep=["learning", "Ġactment"], progress=False)
    added = set(tokenizer.convert_ids_to_tokens(sorted(set(more.kept) - set(few.kept))))
    assert {"learn", "ing", "Ġlearning", "Ġactment"} <= added and "Ġact" not in set(tokenizer.tokenize("Ġactment"))


def test_empty_corpora_are_refused() -> None:
    tokenizer = tokenizer_of("bert")
    for texts in ([], [""], iter(["  ", ""])):
        with pytest.raises(DataError, match="no text"):
            plan_vocabulary(tokenizer, texts, progress=False)


@pytest.mark.parametrize("word", ["龘", "walk 🦊", ""])
def test_words_that_cannot_be_represented_are_refused(word: str) -> None:
    with pytest.raises(DataError, match="cannot represent") as raised:
        small_plan(tokenizer_of("bert"), keep=["walk", word])
    assert raised.value.value == word


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(PlanError, match="min_count=0"):
        small_plan(tokenizer_of("bert"), min_count=0)
    with pytest.raises(PlanError, match="all, corpus"):
        small_plan(tokenizer_of("bert"), characters="some")


def test_progress_can_be_silenced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfcompress.utils.progress.interactive", lambda: True)
    small_plan(tokenizer_of("bert"))
    assert capsys.readouterr().err == ""
    plan_vocabulary(tokenizer_of("bert"), CORPUS)
    assert "counting tokens" in capsys.readouterr().err
