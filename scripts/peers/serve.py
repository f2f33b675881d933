"""A peer's side of scripts/int8_peers.py: pairs come once, then their places, and scores go back."""

import json
import os
import sys


def serve(make):
    """Answer on stdin and stdout until there is no more.

    The first line holds the request: `folder`, `work`, `texts` for calibration, `pairs`, `threads`, `max_length` and
    the CPU `target`. The answer to it holds the `files` that were made; after that, each line holds places of pairs,
    and the answer their scores.

    Args:
        make: Gets the request; returns a function from pairs to scores, and the files.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(content):
        print(json.dumps(content), file=answers, flush=True)

    request = json.loads(sys.stdin.readline())
    score, files = make(request)
    pairs = request["pairs"]
    answer({"files": [str(path) for path in files]})
    for line in sys.stdin:
        answer([float(value) for value in score([pairs[place] for place in json.loads(line)])])
