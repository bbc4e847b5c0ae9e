"""Tournaments: who is better, from verdicts on pairs of answers.

::

    from posterhall.evals.arena import verdicts, elo, bradley_terry

    games = verdicts.read(["verdicts.csv"])
    elo.rate(games).rating
    bradley_terry.rate(games).interval()

`.verdicts` (games and their files), `.elo`, `.bradley_terry`, `.judges` (position bias, flips, agreement),
`.relative` (scores against a reference model), `.table` (all of it at once).
"""
