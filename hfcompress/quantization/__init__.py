"""Export and quantization: Optimum-style configs, graphs for each runtime, and packed weights."""
