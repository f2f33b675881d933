"""LangChain's `CohereRerank` as a document compressor."""

import json
import sys

from langchain_cohere import CohereRerank
from langchain_core.documents import Document

asked = json.load(sys.stdin)
documents = [Document(page_content=text, metadata={"index": index}) for index, text in enumerate(asked["documents"])]
ranker = CohereRerank(model=asked["model"], base_url=asked["url"], cohere_api_key="none", top_n=len(documents))
found = ranker.compress_documents(documents, asked["query"])
print(json.dumps([[each.metadata["index"], each.metadata["relevance_score"]] for each in found]))
