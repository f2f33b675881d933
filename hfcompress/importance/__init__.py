"""Importance of heads and FFN neurons."""
