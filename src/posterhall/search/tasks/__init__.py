"""Kinds of problems to search on: games of numbers, crosswords, writing, word grids, and a user's own."""
