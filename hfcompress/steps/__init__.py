"""The steps of a run, a module for each; `hfcompress.pipeline` puts them together."""
