"""Generated data whose truth is known: planted analogies and phrases, mazes, recall, ListOps, Pathfinder."""
