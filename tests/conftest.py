"""Pico models of every family, a tokenizer and ranking data, all made here: no network and no files from elsewhere."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from pretend_device import start_autograd
from run_samples import FinishedRun, recipe_for
from torch.onnx._internal.exporter import _registration as registration
from transformers import AutoConfig, AutoModelForSequenceClassification, BertTokenizerFast, PreTrainedModel

from hfcompress.data.document import Document
from hfcompress.data.ranking import RankingData, Split
from hfcompress.evaluation.score_store import scores_folder
from hfcompress.models.architectures import ARCHITECTURES
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.pruning.costs.latency import default_cache_folder
from hfcompress.quantization.artifacts import write_graphs
from hfcompress.quantization.config import DynamicQuantizationConfig, OpenVINOQuantizationConfig
from hfcompress.quantization.openvino import is_available
from hfcompress.utils.cache import CACHE_VARIABLE

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"  # real collections; absent from a fresh clone
HIDDEN, HEADS, FFN, LAYERS = 32, 4, 64, 4
VOCABULARY = 120
WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "an", "en")]
MARK = "sun"
IDENTITY = "torch.nn.modules.linear.Identity"
SIGMOID = "torch.nn.modules.activation.Sigmoid"

FAMILIES = sorted(ARCHITECTURES)
# For tests that take seconds: the other families have no tensors of their own in their attention.
OWN_ATTENTION = ("deberta-v2", "modernbert", "mpnet")
EVERY_FAMILY = [
    family if family in OWN_ATTENTION else pytest.param(family, marks=pytest.mark.soak) for family in FAMILIES
]
# Settings that give a family other modules than its row's usual ones.
VARIANTS = [
    pytest.param(
        "deberta-v2",
        {"share_att_key": False, "position_biased_input": True, "type_vocab_size": 2, "conv_kernel_size": 3},
        id="deberta-v2-with-position-projections-and-convolution",
    ),
    pytest.param("deberta-v2", {"relative_attention": False}, id="deberta-v2-without-relative-attention"),
    pytest.param(
        "modernbert",
        {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_pooling": "mean"},
        id="modernbert-with-biases-and-mean-pooling",
    ),
]


def families(*quick: str) -> list[Any]:
    """Parameters for every family; those that are not named are left to `make test-slow`."""
    return [pytest.param(each, marks=() if each in quick else pytest.mark.soak, id=each) for each in FAMILIES]


FAMILIES_AND_VARIANTS = [*(pytest.param(family, {}, id=family) for family in FAMILIES), *VARIANTS]


# Files that take longest come first: what two test processes share out would otherwise end with one of them alone.
SLOW_FILES = (
    "test_pipeline.py", "test_resume.py", "test_finished_run.py", "test_compress.py", "test_export.py",
    "test_publish.py", "test_prune.py", "test_score_text_run.py", "test_known_faults.py", "test_processes.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist, and what it starts, a core and a cache of scores of its own.

    Threads of two would wait for cores. Scores that are known from another test, or from before a change of the code,
    would hide what is computed now; measured latencies stay.
    """
    latency, cache = default_cache_folder(), Path(tempfile.mkdtemp(prefix="hfcompress-tests-"))
    latency.mkdir(parents=True, exist_ok=True)
    (cache / "latency").symlink_to(latency, target_is_directory=True)
    os.environ[CACHE_VARIABLE] = str(cache)
    config.add_cleanup(partial(shutil.rmtree, cache, ignore_errors=True))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_sessionstart() -> None:
    """Before any test runs a backward pass, or exports a graph."""
    start_autograd()
    read_operators_once()


def read_operators_once() -> None:
    """Let exports to ONNX share the list of operators, for which torch parses 500 functions in each of them."""
    apis = registration.onnxscript_apis
    apis.get_torchlib_ops = cache(apis.get_torchlib_ops)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first; `--dist loadfile` keeps a file, and what its tests share, in one process."""
    items.sort(key=lambda item: item.path.name not in SLOW_FILES)


@pytest.fixture(autouse=True)
def _no_known_scores() -> None:
    """No test knows the scores of another."""
    shutil.rmtree(scores_folder(), ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> None:
    """Let the garbage collector pass over what is there before a file: modules, thousands of tests, caches.

    A full collection of them takes a second, and a Trainer asks for several.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two test processes share two cores."""
    torch.set_num_threads(1)


# What a family's config needs beside the sizes: token ids within the pico vocabulary, the settings of the models that
# people use (DeBERTa-v3's), and those in which a part shows (a window that is shorter than the inputs).
FAMILY_SETTINGS: dict[str, dict[str, object]] = {
    "electra": {"embedding_size": 16},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    },
    "modernbert": {
        "pad_token_id": 1, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3,
        "local_attention": 8,
    },
}  # fmt: skip


def pico_config(family: str, **changes: object) -> AutoConfig:
    names = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": FFN}
    if family == "distilbert":
        names = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": FFN}
    # RoBERTa's positions start behind the padding token, so 514 positions hold 512 tokens.
    settings = {"vocab_size": VOCABULARY, "num_labels": 1, "max_position_embeddings": 514, **names}
    return AutoConfig.for_model(family, **{**settings, **FAMILY_SETTINGS.get(family, {}), **changes})


def make_pico(family: str = "bert", seed: int = 0, **changes: object) -> PreTrainedModel:
    """A model with random weights that are large enough for scores to differ."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(pico_config(family, **changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embeddings" not in name:
                parameter.mul_(6)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


@pytest.fixture
def pico() -> Callable[..., PreTrainedModel]:
    return make_pico


def uneven_plan() -> PruningPlan:
    """Uneven heads and widths, a layer dropped, one without heads and one without FFN."""
    return PruningPlan(
        LAYERS,
        HEADS,
        FFN,
        (
            LayerPlan(0, (1, 3), tuple(range(0, FFN, 2))),
            LayerPlan(2, (), tuple(range(5))),
            LayerPlan(3, (0, 2, 3), ()),
        ),
    )


def front_plan() -> PruningPlan:
    """The first layer dropped, so that another comes to the front; the rest uneven."""
    return PruningPlan(
        LAYERS, HEADS, FFN, (LayerPlan(1, (2,), (4, 60)), LayerPlan(2, (), ()), LayerPlan(3, (0, 1, 3), (0, 1)))
    )


def stock_plan() -> PruningPlan:
    heads = tuple(range(HEADS))
    return PruningPlan(LAYERS, HEADS, FFN, tuple(LayerPlan(layer, heads, tuple(range(8, 40))) for layer in (0, 3)))


def random_inputs(batch: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Token ids of pairs, with a padded tail in all rows but the first."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, length, dtype=torch.long)
    for row in range(1, batch):
        mask[row, max(2, length - row) :] = 0
    ids = torch.randint(5, VOCABULARY, (batch, length), generator=generator)
    return {"input_ids": torch.where(mask.bool(), ids, torch.ones_like(ids)), "attention_mask": mask}


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one test process makes, and all read; copy it before a change."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, complete = root / name, root / f"{name}.complete"
    with FileLock(root / f"{name}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizerFast:
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", MARK, *WORDS]), encoding="utf-8")
    return BertTokenizerFast(str(path), model_max_length=32)


@pytest.fixture(scope="session")
def word_data() -> RankingData:
    """A query of four words; its relevant document repeats them among others, and has a word that others lack."""
    rng = random.Random(0)
    queries, corpus = {}, {}
    for number in range(60):
        words = rng.sample(WORDS, 4)
        queries[f"q{number}"] = " ".join(words)
        corpus[f"d{number}"] = Document("", " ".join([MARK, *rng.sample(words + rng.sample(WORDS, 4), 7)]))
        corpus[f"n{number}"] = Document("", " ".join(rng.sample(WORDS, 8)))
    splits = {}
    for split, numbers in (("train", range(40)), ("dev", range(40, 48)), ("test", range(48, 60))):
        candidates = {}
        for number in numbers:
            others = rng.sample([f"n{other}" for other in range(60)], 5)
            candidates[f"q{number}"] = rng.sample([f"d{number}", *others], 6)
        splits[split] = Split({f"q{number}": {f"d{number}": 1} for number in numbers}, candidates)
    return RankingData("words", queries, corpus, splits)


def write_beir(folder: Path, data: RankingData) -> Path:
    """Write data as a folder in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "bm25").mkdir()
    queries = [json.dumps({"_id": key, "text": text}) for key, text in data.queries.items()]
    corpus = [json.dumps({"_id": key, "title": "", "text": document.text}) for key, document in data.corpus.items()]
    (folder / "queries.jsonl").write_text("\n".join(queries))
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    for name, split in data.splits.items():
        judged = [f"{query}\t{key}\t{grade}" for query, row in split.qrels.items() for key, grade in row.items()]
        listed = [
            f"{query}\t{key}\t{rank}\t0.0"
            for query, documents in split.candidates.items()
            for rank, key in enumerate(documents, 1)
        ]
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged))
        (folder / "bm25" / f"{name}.tsv").write_text("query-id\tcorpus-id\trank\tscore\n" + "\n".join(listed))
    return folder


@pytest.fixture
def cross_encoder(tmp_path: Path, tokenizer: BertTokenizerFast) -> Path:
    """A pico BERT cross-encoder on disk."""
    folder = tmp_path / "cross-encoder"
    save_checkpoint(folder, make_pico(), tokenizer, SIGMOID, 32)
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, tokenizer: BertTokenizerFast) -> Path:
    """A pruned checkpoint with graphs for every runtime, as a run leaves it; copy it before a change."""

    def make(folder: Path) -> None:
        model = apply_plan(make_pico(), uneven_plan())
        save_checkpoint(folder, model, tokenizer, IDENTITY, 32)
        configs = [DynamicQuantizationConfig()] + [OpenVINOQuantizationConfig()] * is_available()
        pairs = [("ba de fi", " ".join(WORDS[place : place + 1 + place % 7])) for place in range(12)]
        write_graphs(folder, model, tokenizer, configs, pairs=pairs, progress=False)

    return made_once(tmp_path_factory, "repository", make)


@pytest.fixture(scope="session")
def run_inputs(tmp_path_factory: pytest.TempPathFactory, word_data: RankingData, tokenizer: BertTokenizerFast) -> Path:
    """Data and encoder of `run_samples.recipe_for`."""

    def make(folder: Path) -> None:
        write_beir(folder / "words", word_data)
        save_checkpoint(folder / "encoder", make_pico(), tokenizer, SIGMOID, 32)

    return made_once(tmp_path_factory, "inputs", make)


@pytest.fixture(scope="session")
def finished_run(run_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run as a user starts it; copy its folder before a change."""

    def make(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_for(run_inputs)))
        command = [sys.executable, "-m", "hfcompress", "run", str(folder / "recipe.yaml"), "--out", str(folder / "out")]
        unset = ("HFCOMPRESS_DEBUG", "PYTHONWARNINGS")
        settings = {name: value for name, value in os.environ.items() if name not in unset}
        done = subprocess.run(command, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
        (folder / "errors.txt").write_text(done.stderr, encoding="utf-8")

    folder = made_once(tmp_path_factory, "run", make)
    printed, errors = ((folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("printed", "errors"))
    return FinishedRun(folder / "out", printed.splitlines(), errors.splitlines())
