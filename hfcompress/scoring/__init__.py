"""`hfcompress score`: scores for files and streams of pairs of any length, in bounded memory."""
