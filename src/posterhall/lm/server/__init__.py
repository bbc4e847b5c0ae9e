"""Any `LM` as an OpenAI-compatible server: models, chat, completions, embeddings, streaming.

from posterhall.lm import connect
from posterhall.lm.server.running import serve

serve({"tiny": connect("runs/tiny")}, port=8000)
"""
