"""fastembed's TextCrossEncoder with a custom model from a folder."""

import json
import sys

from fastembed.common.model_description import ModelSource
from fastembed.rerank.cross_encoder import TextCrossEncoder

asked = json.load(sys.stdin)
name = "local/hfcompress"
TextCrossEncoder.add_custom_model(model=name, sources=ModelSource(hf=name), model_file=asked["file"])
model = TextCrossEncoder(model_name=name, specific_model_path=asked["folder"])
print(json.dumps([float(score) for score in model.rerank(asked["query"], asked["documents"])]))
