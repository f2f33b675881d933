"""`hfcompress serve`: rankers behind the HTTP interfaces of other reranking servers."""
