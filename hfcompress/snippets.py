"""Code for the model card that opens the checkpoint in each runtime of the run."""

from __future__ import annotations

from hfcompress.evaluation.report import Artifact, RunReport
from hfcompress.layout import PACKED_FOLDER
from hfcompress.markdown import fence

# Where the repository layout puts the graphs, for an artefact whose path is a folder.
_ONNX_FILE = "onnx/model_quantized.onnx"
_OPENVINO_FILE = "openvino/openvino_model_qint8_quantized.xml"

# The families with fairseq's vocabulary name their padding token differently from those with BERT's.
_FAIRSEQ_FAMILIES = {"roberta", "xlm-roberta", "camembert", "mpnet"}

_PAIRS = """
folder = "."
query = "how to sort a list in place"
documents = ["list.sort() sorts the list in place.", "tuple.count() counts a value."]
"""

_HFCOMPRESS = """import hfcompress
{pairs}
ranker = hfcompress.load_ranker(folder)
scores = ranker.score([(query, document) for document in documents])
"""

_PACKED = """import hfcompress
{pairs}
ranker = hfcompress.load_ranker(folder, file="{path}")
scores = ranker.score([(query, document) for document in documents])
model = hfcompress.load_model(folder, file="{path}")  # in fp32; model.save_pretrained(...) unpacks it for other clients
"""

_TRANSFORMERS = """import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
{pairs}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{trust}).eval()
features = tokenizer(
    [query] * len(documents), documents, padding=True, truncation=True, max_length={max_length}, return_tensors="pt"
)
with torch.inference_mode():
    scores = model(**features).logits.squeeze(-1)
"""

_SENTENCE_TRANSFORMERS = """from sentence_transformers import CrossEncoder
{pairs}
model = CrossEncoder(folder{trust})
scores = model.predict([(query, document) for document in documents])
"""

_TOKENIZERS = """import numpy as np
from tokenizers import Tokenizer
{pairs}
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation(max_length={max_length})
tokenizer.enable_padding(pad_id=tokenizer.token_to_id("{pad}"), pad_token="{pad}")
encodings = tokenizer.encode_batch([(query, document) for document in documents])
features = {{
    "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
    "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
    "token_type_ids": np.array([encoding.type_ids for encoding in encodings], dtype=np.int64),
}}
"""

_ONNXRUNTIME = """import onnxruntime

session = onnxruntime.InferenceSession(f"{{folder}}/{path}", providers=["CPUExecutionProvider"])
names = {{node.name for node in session.get_inputs()}}
scores = session.run(None, {{name: array for name, array in features.items() if name in names}})[0].reshape(-1)
"""

_OPENVINO = """import openvino

model = openvino.Core().compile_model(f"{{folder}}/{path}", "CPU")
names = {{name for node in model.inputs for name in node.names}}
scores = model({{name: array for name, array in features.items() if name in names}})[0].reshape(-1)
"""


def loading_snippets(report: RunReport) -> str:
    """Markdown with one Python block each for hfcompress, transformers, sentence-transformers and exported runtimes.

    The blocks for ONNX Runtime and OpenVINO open the fastest artefact of that runtime, and go on from the block that
    tokenizes.
    """
    custom = report.pruning is not None and report.pruning.custom_code
    values = {
        "pairs": _PAIRS,
        "trust": ", trust_remote_code=True" if custom else "",
        "max_length": report.max_length,
        "pad": "<pad>" if report.model_type in _FAIRSEQ_FAMILIES else "[PAD]",
    }
    parts = [
        "`folder` is a copy of this repository. Scores compare the documents of one query: only their order counts."
    ]
    if custom:
        parts.append(
            "`trust_remote_code=True` lets transformers run `modeling_hfcompress.py` of this repository, which builds "
            "the uneven layers; read it before you trust it. Without it, transformers takes the stock class and stops "
            "at weights that do not fit. The exported graphs need no such code."
        )
    parts += [
        _titled("hfcompress", _HFCOMPRESS.format(**values)),
        _titled("transformers", _TRANSFORMERS.format(**values)),
        _titled("sentence-transformers", _SENTENCE_TRANSFORMERS.format(**values)),
    ]
    onnx, openvino = (_fastest(report, runtime) for runtime in ("onnxruntime", "openvino"))
    if onnx or openvino:
        parts.append(_titled("Tokenizing for the exported graphs, without transformers", _TOKENIZERS.format(**values)))
    if onnx:
        path = onnx.path if onnx.path.endswith(".onnx") else _ONNX_FILE
        parts.append(_titled("ONNX Runtime", _ONNXRUNTIME.format(path=path)))
    if openvino:
        path = openvino.path if openvino.path.endswith(".xml") else _OPENVINO_FILE
        parts.append(_titled("OpenVINO", _OPENVINO.format(path=path)))
    for artifact in report.artifacts:
        if artifact.path.startswith(f"{PACKED_FOLDER}/"):
            parts.append(
                _titled(f"Packed weights ({artifact.precision})", _PACKED.format(path=artifact.path, **values))
            )
    return "\n\n".join(parts)


def _fastest(report: RunReport, runtime: str) -> Artifact | None:
    fitting = [artifact for artifact in report.artifacts if artifact.runtime == runtime]
    return max(fitting, key=lambda artifact: artifact.speedup, default=None)


def _titled(title: str, block: str) -> str:
    return f"**{title}**\n\n{fence(block, 'python')}"
