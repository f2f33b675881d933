"""`hfcompress serve` as a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from typing import Any

QUERY = "ba de fi"
DOCUMENTS = ["ba", "de fi", "san sen to", "ba de fi", "ku"]
BODY = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True}


class Server:
    """`hfcompress serve` in a process."""

    def __init__(self, *arguments: str, **environment: str):
        command = [sys.executable, "-m", "hfcompress", "serve", *arguments, "--port", "0", "--threads", "1"]
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.url = self.wait_for(r"on (http://\S+)")
        self.address = ("127.0.0.1", int(self.url.rpartition(":")[2]))

    def wait_for(self, pattern: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(pattern, line):
                return found[found.lastindex or 0]
        raise AssertionError(f"the server ended without {pattern}")

    def rerank(self, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/rerank", json.dumps({**BODY, **body}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def scores(self) -> list[float]:
        found = {each["index"]: each["score"] for each in self.rerank()}
        return [found[index] for index in range(len(DOCUMENTS))]
