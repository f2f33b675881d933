"""LlamaIndex's node postprocessors for text-embeddings-inference and for Cohere."""

import json
import sys

from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

asked = json.load(sys.stdin)
count = len(asked["documents"])
for ranker in (
    TextEmbeddingInference(base_url=asked["url"], top_n=count),
    CohereRerank(base_url=asked["url"], model=asked["model"], api_key="none", top_n=count),
):
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(index))) for index, text in enumerate(asked["documents"])]
    found = ranker.postprocess_nodes(nodes, query_str=asked["query"])
    print(json.dumps([[int(each.node.node_id), each.score] for each in found]))
