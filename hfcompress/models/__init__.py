"""Model families, pruning plans, surgery, checkpoints and their files."""
