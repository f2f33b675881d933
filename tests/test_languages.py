"""Whole runs in other languages: a multilingual pico model, and texts without spaces or from right to left."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import IDENTITY, SHARED_DATA, make_pico, write_beir
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import XLMRobertaTokenizerFast

import hfcompress
from hfcompress.data.beir import load_beir
from hfcompress.data.document import Document
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.token_rates import token_rates
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.long_documents import LongDocumentEncoder
from hfcompress.recipe import LongDocuments, Recipe
from hfcompress.report.report import RunReport

LENGTH = 40
WORDS = {
    "zh": "東京 大學 語言 學生 老師 圖書 北京 歷史 文化 音樂 河流 山脈 城市 鐵路 天氣 動物",
    "ar": "كتاب مدرسة مدينة تاريخ ثقافة نهر جبل قطار طقس حيوان معلم طالب لغة جامعة موسيقى شمس",
}
ENDS = {"zh": "。", "ar": "؟ "}
SPACE = {"zh": "", "ar": " "}


def made_data(language: str) -> RankingData:
    """Documents of several sentences, the last of which has the words of the query."""
    rng, words, join = random.Random(0), WORDS[language].split(), SPACE[language]
    queries, corpus, splits = {}, {}, {}
    for number in range(24):
        wanted = rng.sample(words, 3)
        queries[f"q{number}"] = join.join(wanted)
        for name, last in ((f"d{number}", wanted), (f"n{number}", rng.sample(words, 3))):
            sentences = [join.join(rng.choices(words, k=7)) for _ in range(9)] + [join.join(last)]
            corpus[name] = Document("", "".join(sentence + ENDS[language] for sentence in sentences).strip())
    for split, numbers in (("train", range(12)), ("dev", range(12, 17)), ("test", range(17, 24))):
        listed = {f"q{number}": [f"n{number}", f"d{number}", f"n{(number + 1) % 24}"] for number in numbers}
        splits[split] = Split({f"q{number}": {f"d{number}": 1} for number in numbers}, listed)
    return RankingData("made", queries, corpus, splits, language=language)


def multilingual_tokenizer(texts: list[str]) -> XLMRobertaTokenizerFast:
    """A SentencePiece tokenizer like that of XLM-RoBERTa, trained on these texts and English."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    sizes = {"vocab_size": 6000, "max_piece_length": 2}  # with all characters, and the most frequent pairs of them
    trainer = trainers.UnigramTrainer(**sizes, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator([*texts, "the model reads other languages"], trainer)
    pieces = json.loads(backend.to_str())["model"]["vocab"]
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*special, *((piece, score) for piece, score in pieces if piece != "<unk>"), ("<mask>", 0.0)]
    return XLMRobertaTokenizerFast(vocab=vocabulary, model_max_length=LENGTH)


def compressed(folder: Path, data: RankingData) -> tuple[Path, RankingData, XLMRobertaTokenizerFast]:
    """Run a recipe on the data: prune, recover for a few steps, export, evaluate in chunks."""
    written = write_beir(folder / "data", data)
    (written / "meta.json").write_text(f'{{"name": "made", "language": "{data.language}"}}', encoding="utf-8")
    texts = [document.content for document in data.corpus.values()]
    tokenizer = multilingual_tokenizer(texts)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    model = make_pico("xlm-roberta", vocab_size=len(tokenizer), **special)
    save_checkpoint(folder / "teacher", model, tokenizer, IDENTITY, LENGTH)
    recipe = {
        "name": "languages",
        "data": {"sets": [str(written)], "candidates": 3},
        "teacher": {"model": str(folder / "teacher"), "max_length": LENGTH},
        "prune": {"heads": 0.25, "ffn": 0.5, "calibration_queries": 4},
        "recover": {"documents": 3, "random_negatives": 1, "optimization": {"epochs": 1, "queries_per_batch": 4}},
        "quantize": {"artifacts": [{"runtime": "onnxruntime", "mode": "dynamic"}], "calibration_pairs": 8},
        "evaluate": {
            "threads": 1, "latency_queries": 2, "rounds": 2, "cold_start": False, "min_rank_correlation": 0,
            "long_documents": {"mode": "chunk", "overlap": 2},
        },
    }  # fmt: skip
    hfcompress.run(Recipe.model_validate(recipe), folder / "out", progress=False)
    return folder / "out", load_beir(written), tokenizer


def check(out: Path, data: RankingData, language: str) -> None:
    """The report is about the language, and the student reads every part of a document as its teacher does."""
    report = RunReport.load(out)
    assert report.data.language == language and report.long_documents is not None
    assert report.data.truncated_share > 0.5 and report.explanation is not None
    assert max(each.most for each in report.explanation.by_document_length) > 2 * LENGTH
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"language: {language.partition('-')[0]}" in card and "chunks" in card
    assert 'load_ranker(folder, long_documents={"mode": "chunk", "overlap": 2})' in card
    (query, documents), *_ = data.split("test").candidates.items()
    pairs = data.pairs(query, documents)
    for runtime in ("torch", "onnxruntime"):
        chunked, truncated = (load_ranker(out, runtime, long_documents=mode) for mode in ("chunk", "truncate"))
        inputs = chunked.encode(pairs)["input_ids"]
        assert len(inputs) > len(pairs) and max(map(len, inputs)) <= LENGTH
        assert np.isfinite(chunked.score(pairs)).all() and (chunked.score(pairs) != truncated.score(pairs)).any()


@pytest.mark.parametrize("language", ["zh", pytest.param("ar", marks=pytest.mark.soak)])
def test_a_run_in_another_language(tmp_path: Path, language: str) -> None:
    out, data, tokenizer = compressed(tmp_path, made_data(language))
    check(out, data, language)
    (rate,) = token_rates([document.content for document in data.corpus.values()], tokenizer)
    assert (rate.script, rate.unit) == {"zh": ("CJK", "character"), "ar": ("Arabic", "word")}[language]
    assert rate.unknown_share < 0.05


def test_chunks_end_with_sentences() -> None:
    data = made_data("zh")
    tokenizer = multilingual_tokenizer([document.content for document in data.corpus.values()])
    encoder = LongDocumentEncoder(tokenizer, LongDocuments(mode="chunk", overlap=0, title_tokens=0))
    encoded = encoder.encode([(data.queries["q0"], data.corpus["d0"].content)], LENGTH)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in encoded["input_ids"]]
    assert len(texts) > 2 and all(text.rstrip().endswith("。") for text in texts)


@pytest.mark.soak
@pytest.mark.skipif(not (SHARED_DATA / "drcd").is_dir(), reason="the collection drcd is not here")
def test_a_run_on_chinese_wikipedia(tmp_path: Path) -> None:
    whole = load_beir(SHARED_DATA / "drcd").limited({"train": 12, "dev": 5, "test": 7}, 4)
    kept = {key for split in whole.splits.values() for listed in split.candidates.values() for key in listed}
    kept |= {key for split in whole.splits.values() for grades in split.qrels.values() for key in grades}
    data = replace(
        whole,
        corpus={key: Document("", whole.corpus[key].content) for key in sorted(kept)},
        queries={query: whole.queries[query] for split in whole.splits.values() for query in split.candidates},
    )
    out, data, _ = compressed(tmp_path, data)
    check(out, data, "zh-Hant")
