"""Vocabulary pruning: the tokens that a corpus needs, cut out of tokenizer and model together."""
