"""Which papers have claims, and where; modules are imported when somebody asks for their claims.

A new paper is one entry in `PAPERS`, under the short name its claims give as ``paper=``:

    "word2vec": Paper(
        "Distributed Representations of Words and Phrases and their Compositionality",
        "Mikolov, Sutskever, Chen, Corrado & Dean",
        "NeurIPS 2013",
        "posterhall.claims.word2vec",
    ),
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from posterhall.claims.base import Claim, declared
from posterhall.errors import DataError, UsageError, did_you_mean


@dataclass(frozen=True)
class Paper:
    """A paper and the module that declares its claims."""

    title: str
    authors: str
    venue: str
    module: str


PAPERS: dict[str, Paper] = {
    "word2vec": Paper(
        "Distributed Representations of Words and Phrases and their Compositionality",
        "Mikolov, Sutskever, Chen, Corrado & Dean",
        "NeurIPS 2013",
        "posterhall.claims.word2vec",
    ),
    "distbelief": Paper(
        "Large Scale Distributed Deep Networks",
        "Dean, Corrado, Monga, Chen, Devin, Le, Mao, Ranzato, Senior, Tucker, Yang & Ng",
        "NeurIPS 2012",
        "posterhall.claims.distbelief",
    ),
    "mirage": Paper(
        "Are Emergent Abilities of Large Language Models a Mirage?",
        "Schaeffer, Miranda & Koyejo",
        "NeurIPS 2023",
        "posterhall.claims.mirage",
    ),
    "datablations": Paper(
        "Scaling Data-Constrained Language Models",
        "Muennighoff, Rush, Barak, Le Scao, Piktus, Tazi, Pyysalo, Wolf & Raffel",
        "NeurIPS 2023",
        "posterhall.claims.datablations",
    ),
    "tree_of_thoughts": Paper(
        "Tree of Thoughts: Deliberate Problem Solving with Large Language Models",
        "Yao, Yu, Zhao, Shafran, Griffiths, Cao & Narasimhan",
        "NeurIPS 2023",
        "posterhall.claims.tree_of_thoughts",
    ),
    "cogeval": Paper(
        "Evaluating Cognitive Maps and Planning in Large Language Models with CogEval",
        "Momennejad, Hasanbeig, Vieira Frujeri, Sharma, Ness, Jojic, Palangi & Larson",
        "NeurIPS 2023",
        "posterhall.claims.cogeval",
    ),
    "qlora": Paper(
        "QLoRA: Efficient Finetuning of Quantized LLMs",
        "Dettmers, Pagnoni, Holtzman & Zettlemoyer",
        "NeurIPS 2023",
        "posterhall.claims.qlora",
    ),
    "dpo": Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Rafailov, Sharma, Mitchell, Ermon, Manning & Finn",
        "NeurIPS 2023",
        "posterhall.claims.dpo",
    ),
    "recall": Paper(
        "Zoology: Measuring and Improving Recall in Efficient Language Models",
        "Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra & Ré",
        "ICLR 2024",
        "posterhall.claims.recall",
    ),
    "state_space": Paper(
        "Efficiently Modeling Long Sequences with Structured State Spaces",
        "Gu, Goel & Ré",
        "ICLR 2022",
        "posterhall.claims.state_space",
    ),
}


def load(modules: Sequence[str] | None = None) -> dict[str, type[Claim]]:
    """Import the papers' modules (or those given) and return their claims by id, in declared order."""
    found: dict[str, type[Claim]] = {}
    for module in modules if modules is not None else [paper.module for paper in PAPERS.values()]:
        importlib.import_module(module)
        found.update({c.id: c for c in declared(module)})
    return found


def select(names: Sequence[str], modules: Sequence[str] | None = None) -> list[type[Claim]]:
    """Claims by id or by paper, each once, in declared order; no names selects all.

    Raises:
        UsageError: on a name that is neither.
        DataError: if there are no claims at all.
    """
    known = load(modules)
    if not known:
        raise DataError("no claims are registered")
    papers = {c.paper for c in known.values()}
    for name in names:
        if name not in known and name not in papers:
            raise UsageError(
                f"'{name}' is neither a claim nor a paper; papers: {', '.join(sorted(papers))}; "
                f"'posterhall claims list' names the claims.{did_you_mean(name, [*known, *papers])}"
            )
    return [c for c in known.values() if not names or c.id in names or c.paper in names]


def paper_title(name: str) -> str:
    """A paper's full title with authors and venue; the name itself if it is not registered."""
    paper = PAPERS.get(name)
    return name if paper is None else f"{paper.title} ({paper.authors}, {paper.venue})"
