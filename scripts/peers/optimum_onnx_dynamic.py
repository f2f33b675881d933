"""optimum-onnx's own dynamic int8 for the CPU at hand, in batches of 32 pairs sorted by length."""

from pathlib import Path

import torch
from onnxruntime import SessionOptions
from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from serve import serve
from transformers import AutoTokenizer

BATCH = 32


def make(request):
    """Export the model, quantize it, and open the result."""
    folder, work = request["folder"], Path(request["work"], "onnx")
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=request["max_length"])
    exported = ORTModelForSequenceClassification.from_pretrained(folder, export=True)
    preset = getattr(AutoQuantizationConfig, request["target"])(is_static=False)
    ORTQuantizer.from_pretrained(exported).quantize(save_dir=work, quantization_config=preset)
    options = SessionOptions()
    options.intra_op_num_threads = request["threads"]
    model = ORTModelForSequenceClassification.from_pretrained(
        work, file_name="model_quantized.onnx", session_options=options
    )

    def score(pairs):
        queries, documents = zip(*pairs, strict=True)
        encoded = tokenizer(list(queries), list(documents), truncation=True)
        order = sorted(range(len(pairs)), key=lambda place: -len(encoded["input_ids"][place]))
        scores = torch.empty(len(pairs))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                rows = {name: [values[place] for place in places] for name, values in encoded.items()}
                scores[places] = model(**tokenizer.pad(rows, return_tensors="pt")).logits[:, 0]
        return scores.tolist()

    return score, [work / "model_quantized.onnx"]


serve(make)
