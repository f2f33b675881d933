"""The `cohere` package, version 2 of its interface and then version 1."""

import json
import sys

import cohere

asked = json.load(sys.stdin)
for kind in (cohere.ClientV2, cohere.Client):
    client = kind(api_key="none", base_url=asked["url"])
    found = client.rerank(model=asked["model"], query=asked["query"], documents=asked["documents"])
    print(json.dumps([[each.index, each.relevance_score] for each in found.results]))
