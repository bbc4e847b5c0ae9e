"""Deliberate problem solving: thoughts, who generates and values them, and how the tree is searched."""
