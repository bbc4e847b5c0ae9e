"""Generated corpora whose truth is known: planted analogies, composition and phrases."""
