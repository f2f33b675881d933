"""What chunks gain over truncation for a teacher, and whether its student loses more with them.

    python scripts/long_documents_bars.py TEACHER --student FOLDER --data ../shared/data/scifact --data \
        ../shared/data/cranfield

Each data set has two lines, "truncated" and "chunks": nDCG@10 of the teacher, its gain over truncation with the
standard error of the paired differences, the inputs of a pair, nDCG@10 of the student, and its loss against the teacher
that reads likewise. Settings are chosen with `--split train --split dev`. The bars: a gain of at least 0.01, and a
loss that is no larger with chunks. The figures of one model are also those of `hfcompress evaluate MODEL --data DATA
--max-length 128 --long-documents chunk`.
"""

from __future__ import annotations

import argparse

import numpy as np

from hfcompress.data.load import load_data
from hfcompress.data.ranking import SPLITS, RankingData
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import PRIMARY_METRIC, values_of_scores
from hfcompress.evaluation.reading import reading_cost
from hfcompress.evaluation.scores import split_scores
from hfcompress.evaluation.systems import resolve_model
from hfcompress.models.load import load_tokenizer
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import TRUNCATED, DataStep, LongDocuments, SplitLimits
from hfcompress.utils.quiet import silence_libraries


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--student", help="A folder of a run, or a file in it.")
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--split", action="append", help="Queries that count; those of test by default. Repeatable.")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--max-queries", type=int, help="Queries of each split.")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--max-chunks", type=int, default=16)
    parser.add_argument("--overlap", type=int, default=16)
    parser.add_argument("--title-tokens", type=int, default=32)
    parser.add_argument("--combine", default="max")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def quality(model: Candidate, data: RankingData, options: argparse.Namespace, setting: LongDocuments) -> np.ndarray:
    """nDCG@10 of each query."""
    machine, found = RankerOptions(options.threads, long_documents=setting), []
    for split in options.split:
        scores = split_scores(model, data, split, max_length=options.max_length, options=machine)
        found += [each[PRIMARY_METRIC] for each in values_of_scores(scores, data, split).values()]
    return np.array(found)


def main() -> None:
    """Print the figures of all data sets."""
    silence_libraries()
    options = arguments()
    options.split = options.split or ["test"]
    chunks = LongDocuments(
        mode="chunk",
        max_chunks=options.max_chunks,
        overlap=options.overlap,
        title_tokens=options.title_tokens,
        combine=options.combine,
    )
    teacher = Candidate.teacher(options.teacher, options.teacher)
    student = resolve_model(options.student, "student", device="cpu") if options.student else None
    for name in options.data:
        limits = SplitLimits(**{each: options.max_queries if each in options.split else 1 for each in SPLITS})
        data = load_data(DataStep(sets=[name], candidates=options.candidates, max_queries=limits), False)
        listed = [item for split in options.split for item in data.split(split).candidates.items()]
        pairs = [pair for query, documents in listed for pair in data.pairs(query, documents)]
        cost = reading_cost(pairs, load_tokenizer(options.teacher), options.max_length, chunks)
        print(f"{data.name}: {cost.truncated_pairs:.0%} of {len(pairs):,} pairs are truncated; {chunks}")
        base = quality(teacher, data, options, TRUNCATED)
        for title, setting in (("truncated", TRUNCATED), ("chunks", chunks)):
            found = base if setting == TRUNCATED else quality(teacher, data, options, setting)
            gain = found - base
            error = gain.std(ddof=1) / len(gain) ** 0.5
            inputs = cost.inputs_per_pair if setting.chunks else 1.0
            line = f"  {title:9} teacher {found.mean():.4f} ({gain.mean():+.4f} ± {error:.4f}, {inputs:.2f} inputs)"
            if student:
                own = quality(student, data, options, setting)
                line += f", student {own.mean():.4f} ({(own - found).mean():+.4f})"
            print(line)


if __name__ == "__main__":
    main()
