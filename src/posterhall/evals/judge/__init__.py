"""Pairwise judging: a language model says which of two answers to a question is better.

`.answers` (what is judged, from files), `.prompts` (how it is asked), `.reading` (what is read from its
replies), `.jobs` (judging as a run, each pair in both orders). `posterhall.evals.arena` rates what comes out.
"""
