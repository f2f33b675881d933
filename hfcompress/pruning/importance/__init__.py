"""Importance of heads and FFN neurons, and least-squares weight updates."""
