"""What the death of a worker costs: real processes, really killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Equivalent, Figure, Panel, Relative, Row, Strip, claim


@claim(id="killed-worker-costs-its-batch", paper="distbelief", where="§4.1", exclusive=True)
class KilledWorkerCostsItsBatch(Claim):
    """Killing one of two workers in the middle leaves as much learned as an undisturbed run.

    Two worker processes train word vectors around a parameter server in shared memory. One is killed
    (signal 9) once a share of all words, drawn between a quarter and six tenths, is done and it has trained
    some itself; none is started in its place. Learned is the fall of the held-out loss. A run that
    leaves words untrained counts as having learned nothing.
    """

    kind = Equivalent(metric="learned", arms=("one worker killed", "undisturbed"), margin=Relative(0.02))
    paper_value = "no number; when a machine fails, the other replicas go on (read second-hand)"
    refuted_by = "a killed worker changes what is learned by more than 2 %, or words are left untrained"
    negative_control = (
        "half of the corpus missing, as if a dead worker's chunks were lost, must not come out equal"
    )
    control_arms = ("half the corpus", "undisturbed")
    deviates = (
        "two processes on one machine, whose pulls and pushes are slowed to those of a network, and word "
        "vectors of 800 generated words; the control runs on threads"
    )
    scales = {
        "smoke": Budget(tokens=100_000, words=800, dim=32, epochs=2, seconds=10.0),
        "laptop": Budget(tokens=300_000, words=800, dim=32, epochs=2, seeds=10, seconds=15.0),
        "full": Budget(tokens=100_000_000, words=20_000, dim=300, epochs=2, seeds=10, seconds=3600.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.distbelief.killing import Training

        training = Training(
            words=budget.words, tokens=budget.tokens, dim=budget.dim, epochs=budget.epochs, seed=seed
        )
        yield training.undisturbed("undisturbed")
        yield training.with_a_death("one worker killed")
        yield training.on_half("half the corpus")

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = [*self.kind.names, self.control_arms[0]]
        return Figure(
            Panel(Strip.of(rows, "learned", arms), x=Axis("learned: fall of the held-out loss (nats)")),
            Panel(
                Strip.of(rows, "trained_by_second", arms),
                x=Axis("words trained by the second worker", percent=True),
            ),
            caption="What two workers learn if one of them is killed on the way, and whose work it was. "
            "Killed workers trained a smaller part; the other one took over the rest.",
        )
