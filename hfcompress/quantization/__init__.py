"""int8: Optimum-style configs, exports, and one quantize() for each runtime."""
