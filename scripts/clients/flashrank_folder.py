"""FlashRank from a folder: it knows models by a table of names and files, to which this one is added."""

import json
import sys
from pathlib import Path

from flashrank import Ranker, RerankRequest
from flashrank.Config import model_file_map

asked = json.load(sys.stdin)
folder = Path(asked["folder"])
model_file_map[folder.name] = asked["file"]
ranker = Ranker(model_name=folder.name, cache_dir=str(folder.parent), log_level="ERROR")
passages = [{"id": number, "text": text} for number, text in enumerate(asked["documents"])]
scores = {hit["id"]: float(hit["score"]) for hit in ranker.rerank(RerankRequest(asked["query"], passages))}
print(json.dumps([scores[number] for number in range(len(passages))]))
