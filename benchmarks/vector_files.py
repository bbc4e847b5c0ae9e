"""Reading and writing word vectors against gensim: binary at 100,000 x 300, text at a tenth of that."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, interleaved


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--words", type=int, default=100_000, help="of the binary file")
    parser.add_argument("--dimensions", type=int, default=300)


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)

    import gensim
    import numpy as np
    from gensim.models import KeyedVectors

    from posterhall.embeddings import formats
    from posterhall.embeddings.vectors import WordVectors

    logging.getLogger("gensim").setLevel(logging.ERROR)
    name = f"gensim {gensim.__version__}"
    rng = np.random.default_rng(0)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, binary, count in (("binary", True, chosen.words), ("text", False, chosen.words // 10)):
            matrix = rng.normal(scale=0.3, size=(count, chosen.dimensions)).astype(np.float32)
            vectors = WordVectors([f"word{i}" for i in range(count)], matrix)
            peer = KeyedVectors(chosen.dimensions)
            peer.add_vectors(list(vectors.words), matrix)
            ours_path, peer_path = Path(folder) / f"ours.{kind}", Path(folder) / f"peer.{kind}"
            size = f"{count:,} x {chosen.dimensions} {kind}"

            def write(path: Path = ours_path, vectors: Any = vectors, kind: str = kind) -> None:
                formats.save(vectors, path, format=f"word2vec-{kind}", newline=False)  # type: ignore[arg-type]

            def peer_write(path: Path = peer_path, peer: Any = peer, binary: bool = binary) -> None:
                peer.save_word2vec_format(str(path), binary=binary)

            def read(path: Path = peer_path) -> Any:
                return formats.load(path)

            def peer_read(path: Path = peer_path, binary: bool = binary) -> Any:
                return KeyedVectors.load_word2vec_format(str(path), binary=binary)

            write()
            saved = interleaved({"ours": write, "gensim": peer_write}, repeats=chosen.repeats)
            equal = ours_path.read_bytes() == peer_path.read_bytes()
            results.append(
                faster(f"save {size}", saved["ours"], saved["gensim"], name, quality={"same_bytes": equal})
            )
            read()  # loads the compiled parser
            loaded = interleaved({"ours": read, "gensim": peer_read}, repeats=chosen.repeats)
            same = loaded["ours"].value.matrix.tobytes() == loaded["gensim"].value.vectors.tobytes()
            results.append(
                faster(f"load {size}", loaded["ours"], loaded["gensim"], name, quality={"same_vectors": same})
            )
    emit("vector_files", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
