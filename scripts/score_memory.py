"""Measure peak memory and throughput of `hfcompress score` as the number of pairs grows.

    python scripts/score_memory.py --pairs 10000 100000 1000000

A pico model with random weights, or that of `--model`, scores JSON lines of random words, in a process of its own for
each number of pairs. The ranker's own throughput is that of `Ranker.score` for up to 200,000 of the pairs, which are in
memory, 10,000 in a call: the mean of a process before and one after, since a CPU is faster in its first seconds than in
a run of minutes. The bars: peak memory within 10% of that of the fewest pairs, and at least 0.95 times the ranker's
throughput. Linux only: the peak is `VmHWM`, which a process reads about itself.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from score_times import IDENTITY, words
from transformers import AutoConfig, AutoModelForSequenceClassification, BertTokenizer

from hfcompress.models.checkpoint import save_checkpoint

MAX_LENGTH = 128
RANKER_PAIRS = 200_000
MEMORY_BAR, SPEED_BAR = 1.10, 0.95

PEAK = """
import re
from pathlib import Path
print("peak", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""
SCORE = f"import sys\nfrom hfcompress.cli import main\nmain(sys.argv[1:]){PEAK}"
RANK = """
import itertools, json, sys, time
from hfcompress.evaluation.systems import resolve_model
from hfcompress.rankers.base import RankerOptions
model, source, threads, count = sys.argv[1:]
with open(source, encoding="utf-8") as stream:
    rows = [json.loads(line) for line in itertools.islice(stream, int(count))]
pairs = [(row["query"], row["document"]) for row in rows]
ranker = resolve_model(model, model, device="cpu").ranker(None, RankerOptions(int(threads)))
ranker.score(pairs[:200])
start = time.perf_counter()
for place in range(0, len(pairs), 10_000):
    ranker.score(pairs[place : place + 10_000])
print("speed", len(pairs) / (time.perf_counter() - start), file=sys.stderr)
"""


def write_model(folder: Path) -> Path:
    """Save a pico model whose tokenizer knows `words()`."""
    folder.mkdir()
    vocabulary = folder / "words.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words()]), encoding="utf-8")
    tokenizer = BertTokenizer(str(vocabulary), model_max_length=MAX_LENGTH)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model("bert", vocab_size=len(words()) + 5, num_labels=1, **sizes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    save_checkpoint(folder, model, tokenizer, IDENTITY, MAX_LENGTH)
    return folder


def write_pairs(path: Path, count: int) -> Path:
    """Write pairs of a query and a document of 8 to 72 words, with other fields."""
    rng, known = random.Random(0), words()
    texts = [" ".join(rng.choices(known, k=rng.randint(8, 72))) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            row = {
                "id": number,
                "query": " ".join(rng.choices(known, k=6)),
                "document": f"{rng.choice(known)} {rng.choice(texts)}",  # documents do not come again
                "source": {"shard": number % 7, "url": f"https://example.com/{number}"},
            }
            stream.write(json.dumps(row) + "\n")
    return path


def output_of(code: str, *arguments: object) -> str:
    """What a process wrote to stderr."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr


def figure(pattern: str, text: str) -> float:
    """A number in a text."""
    found = re.search(pattern, text)
    if not found:
        raise SystemExit(f"no {pattern} in: {text}")
    return float(found[1].replace(",", ""))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--model", help="a folder; by default a pico model")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or str(write_model(folder / "model"))
        first: float | None = None
        for count in sorted(options.pairs):
            source, target = write_pairs(folder / "pairs.jsonl", count), folder / "scored.jsonl"
            ranker = (RANK, model, source, options.threads, min(count, RANKER_PAIRS))
            before = figure(r"speed (\S+)", output_of(*ranker))
            files = ("--input", source, "--output", target)
            log = output_of(SCORE, "score", model, *files, "--threads", options.threads, "--device", "cpu")
            peak = figure(r"peak (\d+)", log) / 1024
            speed = figure(r": ([\d,.]+) pairs/s", log)
            alone = (before + figure(r"speed (\S+)", output_of(*ranker))) / 2
            first = first or peak
            print(
                f"{count:>9,} pairs: peak {peak:6.0f} MiB, {peak / first:.3f} of the first (at most {MEMORY_BAR}); "
                f"{speed:,.0f} pairs/s, {speed / alone:.3f} of the ranker's {alone:,.0f} (at least {SPEED_BAR})",
                flush=True,
            )
            target.unlink()


if __name__ == "__main__":
    main()
