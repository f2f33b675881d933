"""Options of the scripts that evaluate int8, and their data sets."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from hfcompress.data.load import load_data
from hfcompress.data.ranking import RankingData
from hfcompress.recipe import DataStep


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of model, data and evaluation."""
    parser.add_argument("model", help="an unpruned cross-encoder in fp32: a folder, or package:NAME/FOLDER")
    parser.add_argument("--data", action="append", required=True, help="api-search or a folder in BEIR's layout")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=100, help="queries of the split of each set")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--calibration", type=int, default=128, help="pairs of train queries")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="0 uses all cores")


def data_sets(options: argparse.Namespace) -> Iterator[RankingData]:
    """Yield each data set."""
    limits = {"train": options.calibration, "dev": 1, "test": 1, options.split: options.queries}
    for name in options.data:
        yield load_data(DataStep(sets=[name], candidates=options.candidates, max_queries=limits))
