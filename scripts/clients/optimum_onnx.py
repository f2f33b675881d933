"""optimum-onnx's ORTModelForSequenceClassification, under transformers 4."""

import json
import sys
from pathlib import Path

import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

asked = json.load(sys.stdin)
path = Path(asked["file"])
tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
model = ORTModelForSequenceClassification.from_pretrained(
    asked["folder"], subfolder=str(path.parent), file_name=path.name
)
queries = [asked["query"]] * len(asked["documents"])
features = tokenizer(queries, asked["documents"], padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    print(json.dumps(model(**features).logits[:, 0].tolist()))
