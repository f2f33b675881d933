"""The `rerankers` package with its forms of Cohere, Jina and text-embeddings-inference."""

import json
import sys

from rerankers.models.api_rankers import APIRanker

asked = json.load(sys.stdin)
for provider, path in (("cohere", "/v1/rerank"), ("jina", "/v1/rerank"), ("text-embeddings-inference", "/rerank")):
    ranker = APIRanker(asked["model"], "none", provider, url=asked["url"] + path)
    found = ranker.rank(asked["query"], asked["documents"])
    print(json.dumps([[each.document.doc_id, float(each.score)] for each in found.results]))
