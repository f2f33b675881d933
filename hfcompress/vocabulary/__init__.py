"""Vocabulary pruning: keep the tokens that a corpus needs, in tokenizer and model together."""
