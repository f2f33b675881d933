"""sentence-transformers' CrossEncoder with backend="onnx", under transformers 4."""

import json
import sys

from sentence_transformers import CrossEncoder

asked = json.load(sys.stdin)
model = CrossEncoder(asked["folder"], backend="onnx", device="cpu", model_kwargs={"file_name": asked["file"]})
ranked = model.rank(asked["query"], asked["documents"])
scores = {hit["corpus_id"]: float(hit["score"]) for hit in ranked}
print(json.dumps([scores[number] for number in range(len(asked["documents"]))]))
