"""Time the evaluation of a teacher and three artifacts: in one pass for quality and speed, and with quality apart.

    python scripts/score_times.py --queries 1443 --candidates 15

Models have the size of MiniLM-L6 and random weights, the student a quarter of its MACs; texts are random words. "One
pass" scores all queries in turns, for quality and speed at once; "new" finds an empty store of scores, "known" that of
the run before. The largest difference is of nDCG@10 of a query, over all models.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import torch
from evaluate_overhead import write_data
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hfcompress.data.load import load_data
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.results import EvaluatedCandidate, evaluate_candidates
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.quantization.artifacts import write_graphs
from hfcompress.quantization.config import DynamicQuantizationConfig, OpenVINOQuantizationConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.recipe import DataStep, EvaluateStep
from hfcompress.utils.cache import CACHE_VARIABLE
from hfcompress.utils.log import lines_to
from hfcompress.utils.quiet import silence_libraries

MAX_LENGTH = 256
IDENTITY = "torch.nn.modules.linear.Identity"


def words() -> list[str]:
    """Words of the vocabulary, each a token."""
    consonants, vowels = "bcdfghklmnprstvz", "aeiou"
    return sorted({f"{a}{b}{c}{d}" for a in consonants for b in vowels for c in consonants for d in vowels})


def write_model(folder: Path, layers: int, neurons: int) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Save a model with random weights of MiniLM's width."""
    folder.mkdir()
    vocabulary = folder / "words.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words()]), encoding="utf-8")
    tokenizer = BertTokenizer(str(vocabulary), model_max_length=MAX_LENGTH)
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": neurons}
    config = AutoConfig.for_model("bert", vocab_size=30522, num_labels=1, **sizes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    save_checkpoint(folder, model, tokenizer, IDENTITY, MAX_LENGTH)
    return model, tokenizer


def candidates_in(folder: Path) -> list[Candidate]:
    """A teacher, and a student in fp32 and int8."""
    write_model(folder / "teacher", 6, 1536)
    model, tokenizer = write_model(folder / "student", 3, 512)
    configs = [DynamicQuantizationConfig(), *[OpenVINOQuantizationConfig()] * is_available()]
    rng = random.Random(0)
    pairs = [(" ".join(rng.sample(words(), 6)), " ".join(rng.sample(words(), 90))) for _ in range(32)]
    write_graphs(folder / "student", model, tokenizer, configs, pairs=pairs, progress=False)
    student = Candidate.student(folder / "student")
    return [
        Candidate.teacher(str(folder / "teacher"), "teacher"),
        student,
        *(Candidate.graph(folder / "student", config, student.name) for config in configs),
    ]


def difference(first: list[EvaluatedCandidate], second: list[EvaluatedCandidate]) -> float:
    """Largest difference of the primary metric of a query."""
    both = zip(first, second, strict=True)
    return max(
        abs(one.artifact.per_query[query] - value)
        for one, other in both
        for query, value in other.artifact.per_query.items()
    )


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1443)
    parser.add_argument("--candidates", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    silence_libraries()
    with tempfile.TemporaryDirectory() as name, lines_to(print):
        folder = Path(name)
        os.environ[CACHE_VARIABLE] = str(folder / "cache")
        source = write_data(folder / "words", words(), options.queries, options.candidates)
        data = load_data(DataStep(sets=[str(source)], candidates=options.candidates), False)
        candidates = candidates_in(folder)
        shared = {"threads": options.threads, "cold_start": False, "single_thread_queries": 0}
        first: tuple[float, list[EvaluatedCandidate]] | None = None
        for title, step in (
            ("one pass", EvaluateStep(speed_queries=options.queries, **shared)),
            ("new", EvaluateStep(**shared)),
            ("known", EvaluateStep(**shared)),
        ):
            start = time.perf_counter()
            found = evaluate_candidates(candidates, data, step, max_length=MAX_LENGTH, progress=True)
            seconds = time.perf_counter() - start
            first = first or (seconds, found)
            print(
                f"{title:10} {seconds:8.1f} s {seconds / first[0]:6.2f} of one pass, largest difference "
                f"{difference(first[1], found):.1e}"
            )


if __name__ == "__main__":
    main()
