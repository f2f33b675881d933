"""Code snippets of the model card that load the checkpoint in each runtime of the run."""

from __future__ import annotations

import json

from hfcompress.models.layout import ONNX_INT8, OPENVINO_INT8, PACKED_FOLDER
from hfcompress.rankers.onnxruntime import SLOW_FUSIONS
from hfcompress.report.report import Artifact, RunReport
from hfcompress.utils.text import details, fence

HALVES = {"fp16": "float16", "bf16": "bfloat16"}

# Families with a fairseq vocabulary have another padding token than those with a BERT vocabulary.
_FAIRSEQ_FAMILIES = {"roberta", "xlm-roberta", "camembert", "mpnet"}

_TRUST = """`trust_remote_code=True` lets transformers run `modeling_hfcompress.py` of this repository, which builds the
uneven layers; read it before you trust it. Without it, transformers takes the stock class and stops at weights that do
not fit.

"""

_TEXTS = """folder = "."  # a copy of this repository
query = "how to sort a list in place"
documents = ["list.sort() sorts the list in place.", "tuple.count() counts a value."]
"""

_PROMPT = """query = {prompt} + query  # the text that this model reads before each query
"""

_SCORES = """bm25 = [7.5, 0.0]  # of each document for this query, from your first stage
documents = [
    f"{{round(100 * min(max(score / {bm25_max:g}, 0), 1))}} {separator} {{document}}"
    for score, document in zip(bm25, documents)
]
"""

_SCORES_BY_FUNCTION = """bm25 = [7.5, 0.0]  # of each document for this query, from your first stage
documents = [
    hfcompress.text_with_score(document, score, bm25_max={bm25_max:g}, separator="{separator}")
    for score, document in zip(bm25, documents)
]
"""

_SCORES_JS = """const bm25 = [7.5, 0.0];  // of each document for this query, from your first stage
const number = (score) => Math.round(100 * Math.min(Math.max(score / {bm25_max:g}, 0), 1));
const scored = documents.map((document, place) => `${{number(bm25[place])}} {separator} ${{document}}`);
"""

_SCORES_NOTE = """**This model reads every document behind its BM25 score**, written as a number from 0 to 100, which
stands for a score of {bm25_max:g} or more: `57 {separator} document`. Nothing was measured without the scores, or with
scores of another scale. They are those of BM25 as Lucene computes it (k1 = 1.2, b = 0.75) after stop words and stemming
of the texts' language, over all documents that are searched, not only those that are ranked; a document that shares no
word with the query has 0."""

_CHUNKS_NOTE = """**All figures here are for documents that are read in chunks**, which only hfcompress does. Other
libraries truncate documents that do not fit into one input."""

_HFCOMPRESS = """import hfcompress

{own_texts}
ranker = hfcompress.load_ranker(folder{reading})  # the int8 file that was fastest where the report was made
scores = ranker.score([(query, document) for document in documents])
"""

_PACKED = """import hfcompress

{own_texts}
ranker = hfcompress.load_ranker(folder, file="{path}"{reading})
scores = ranker.score([(query, document) for document in documents])
model = hfcompress.load_model(folder, file="{path}")  # in fp32{unpack}
"""

_HALF = """import hfcompress

{own_texts}
ranker = hfcompress.load_ranker(folder, "torch", device="auto", dtype="{dtype}"{reading})
scores = ranker.score([(query, document) for document in documents])
"""

_TRANSFORMERS = """import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{texts}{prompted}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{trust}).eval()
features = tokenizer(
    [query] * len(documents), documents, padding=True, truncation=True, max_length={max_length}, return_tensors="pt"
)
with torch.inference_mode():
    scores = model(**features).logits.squeeze(-1)
"""

_MODULAR_NOTE = """This is a modular cross-encoder of sentence-transformers: `modules.json` names the modules behind its
encoder. `AutoModelForSequenceClassification` of transformers does not read them, and would give the encoder a new head
with random weights. Graphs for ONNX Runtime and OpenVINO contain the whole model, from tokens to score; `CrossEncoder`
with `backend="onnx"` or `backend="openvino"` expects graphs of the encoder alone, and does not open them."""

_SENTENCE_TRANSFORMERS = """from sentence_transformers import CrossEncoder

{texts}
model = CrossEncoder(folder{trust})
scores = model.predict([(query, document) for document in documents])
"""

_TOKENIZE = """tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation(max_length={max_length})
tokenizer.enable_padding(pad_id=tokenizer.token_to_id("{pad}"), pad_token="{pad}")
encoded = tokenizer.encode_batch([(query, document) for document in documents])
features = {{
    "input_ids": np.array([row.ids for row in encoded], dtype=np.int64),
    "attention_mask": np.array([row.attention_mask for row in encoded], dtype=np.int64),
    "token_type_ids": np.array([row.type_ids for row in encoded], dtype=np.int64),
}}
"""

_ONNXRUNTIME = """import numpy as np
import onnxruntime
from tokenizers import Tokenizer

{texts}{prompted}
{tokenize}
settings = {{"disabled_optimizers": {slow_fusions}}}  # slower than what they replace
session = onnxruntime.InferenceSession(f"{{folder}}/{path}", providers=["CPUExecutionProvider"], **settings)
scores = session.run(None, {{node.name: features[node.name] for node in session.get_inputs()}})[0][:, 0]
"""

_OPENVINO = """import numpy as np
import openvino
from tokenizers import Tokenizer

{texts}{prompted}
{tokenize}
settings = {{"INFERENCE_PRECISION_HINT": "f32"}}  # bf16, the default where a CPU has it, can be wrong for int8
model = openvino.Core().compile_model(f"{{folder}}/{path}", "CPU", settings)
scores = model({{node.any_name: features[node.any_name] for node in model.inputs}})[0][:, 0]
"""

_TRANSFORMERS_JS = """import {{ AutoModelForSequenceClassification, AutoTokenizer }} from "@huggingface/transformers";

const repository = "ORG/NAME";  // where this repository is on the Hub
const query = "how to sort a list in place";
const documents = ["list.sort() sorts the list in place.", "tuple.count() counts a value."];
{scores}
const tokenizer = await AutoTokenizer.from_pretrained(repository);
const model = await AutoModelForSequenceClassification.from_pretrained(repository, {{ dtype: "q8" }});
const queries = documents.map(() => {query});
const features = tokenizer(queries, {{ text_pair: {read}, padding: true, truncation: true }});
const {{ logits }} = await model(features);
const scores = logits.tolist().map(([score]) => score);
"""


def loading_snippets(report: RunReport) -> str:
    """Markdown with a self-contained code block for each runtime of the run.

    If the model reads BM25 scores in its texts, a note comes first, and each block contains the lines that write them.
    The blocks for ONNX Runtime and OpenVINO load the fastest artifact of that runtime and need neither PyTorch nor
    transformers. A modular cross-encoder has no block for transformers, and a note that says why. The block for
    transformers.js is included if the run wrote the file that it reads as `q8`.
    """
    custom = report.pruning is not None and report.pruning.custom_code
    settings = report.data.score_text
    scores = settings.model_dump() if settings else {}
    prompt = json.dumps(report.query_prompt)
    values = {
        "texts": _TEXTS + _SCORES.format(**scores) if settings else _TEXTS,
        "own_texts": _TEXTS + _SCORES_BY_FUNCTION.format(**scores) if settings else _TEXTS,
        "prompted": _PROMPT.format(prompt=prompt) if report.query_prompt else "",
        "trust": ", trust_remote_code=True" if custom else "",
        "max_length": report.max_length,
        "reading": _reading(report),
        "unpack": "" if report.modular else "; model.save_pretrained(...) unpacks it for other clients",
        "slow_fusions": json.dumps(SLOW_FUSIONS),
        "pad": "<pad>" if report.model_type in _FAIRSEQ_FAMILIES else "[PAD]",
    }
    values["tokenize"] = _TOKENIZE.format(**values)
    trusted = _TRUST if custom else ""
    stock = [] if report.modular else [_folded("transformers", trusted, _TRANSFORMERS.format(**values))]
    parts = [
        *([_SCORES_NOTE.format(**scores)] if settings else []),
        *([_MODULAR_NOTE] if report.modular else []),
        fence(_HFCOMPRESS.format(**values), "python"),
        *([_CHUNKS_NOTE] if report.long_documents and report.long_documents.chunks else []),
        "Scores compare the documents of one query: only their order counts. sentence-transformers applies the "
        "activation that config.json names, usually a sigmoid; all others here give logits. The same with other "
        "libraries:",
        *stock,
        _folded("sentence-transformers", trusted, _SENTENCE_TRANSFORMERS.format(**values)),
    ]
    if onnx := _fastest(report, "onnxruntime"):
        path = onnx.path if onnx.path.endswith(".onnx") else ONNX_INT8
        parts.append(_folded("ONNX Runtime, without PyTorch", "", _ONNXRUNTIME.format(path=path, **values)))
    if openvino := _fastest(report, "openvino"):
        path = openvino.path if openvino.path.endswith(".xml") else OPENVINO_INT8
        parts.append(_folded("OpenVINO, without PyTorch", "", _OPENVINO.format(path=path, **values)))
    if any(artifact.path == ONNX_INT8 for artifact in report.artifacts):
        block = _TRANSFORMERS_JS.format(
            scores=_SCORES_JS.format(**scores) if settings else "",
            read="scored" if settings else "documents",
            query=f"{prompt} + query" if report.query_prompt else "query",
        )
        parts.append(_folded("transformers.js", "", block, "js"))
    for artifact in report.artifacts:
        if artifact.path.startswith(f"{PACKED_FOLDER}/"):
            packed = _PACKED.format(path=artifact.path, **values)
            parts.append(_folded(f"Packed weights ({artifact.precision})", "", packed))
        if artifact.precision in HALVES:
            half = _HALF.format(dtype=HALVES[artifact.precision], **values)
            parts.append(_folded(f"PyTorch in 16 bits ({artifact.precision})", "", half))
    return "\n\n".join(parts)


def _reading(report: RunReport) -> str:
    """The argument of `load_ranker` for long documents; empty if they are truncated as by default."""
    if report.long_documents is None:
        return ""
    changed = report.long_documents.model_dump(mode="json", exclude_defaults=True)
    return f", long_documents={json.dumps('chunk' if changed == {'mode': 'chunk'} else changed)}"


def _fastest(report: RunReport, runtime: str) -> Artifact | None:
    fitting = [artifact for artifact in report.artifacts if artifact.runtime == runtime]
    return max(fitting, key=lambda artifact: artifact.speedup, default=None)


def _folded(title: str, note: str, block: str, language: str = "python") -> str:
    return details(f"<b>{title}</b>", note + fence(block, language))
