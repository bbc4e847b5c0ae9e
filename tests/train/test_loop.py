"""The loop: its gradients are those of the whole batch, it goes on to the same bits, it says what fails."""

from __future__ import annotations

import itertools
import json
import os
import signal

import pytest

from posterhall.errors import DataError, Interrupted, PosterhallError
from posterhall.runs import read_manifest, read_metrics
from posterhall.train import TrainSettings, fit, next_token
from posterhall.train.loop import CHECKPOINT

torch = pytest.importorskip("torch")
QUICK = {"lr": 3e-3, "batch": 8, "steps": 12, "log_every": 4}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def largest_difference(one, two):
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def test_it_learns_and_tells_how_it_went(small):
    model, rows, held = small()
    settings = TrainSettings(**{**QUICK, "steps": 60, "lr": 1e-2})
    trained = fit(model, rows, objective=next_token, settings=settings, evaluate=held)
    losses = [line["loss"] for line in trained.history if "loss" in line]
    assert losses[0] > 5.0
    assert losses[-1] == trained.loss < 2.8
    assert trained.evaluation["loss"] == pytest.approx(trained.loss, abs=0.4)
    assert trained.evaluation["tokens"] == 1999
    assert trained.tokens == 60 * 8 * 16
    assert [line["step"] for line in trained.history] == [*range(4, 61, 4), 60]


def test_a_step_is_that_of_torch_itself(small):
    model, rows, _ = small()
    plain, _, _ = small()
    fit(model, rows, objective=next_token, settings=TrainSettings(**QUICK, warmup=0.25, clip=0.5))
    decay = [p for p in plain.parameters() if p.dim() > 1]
    rest = [p for p in plain.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimiser,
        [
            torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 3e-3 * (t + 1) / 3),
            torch.optim.lr_scheduler.LambdaLR(
                optimiser,
                lambda t: 3e-3 * (0.1 + 0.45 * (1 + torch.cos(torch.tensor((t + 1) / 9 * torch.pi)).item())),
            ),
        ],
        [3],
    )
    for step in range(12):
        batch = {name: torch.as_tensor(array) for name, array in rows.take(step * 8, 8).items()}
        logits = plain(batch["ids"])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimiser.step()
        optimiser.zero_grad()
        scheduler.step()
    assert largest_difference(weights(model), weights(plain)) < 2e-5


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 8), (4, 2), (3, 3)])
def test_passes_add_up_to_the_batch(small, batch, accumulate):
    # Rows with different numbers of labels, which a mean of means would get wrong.
    def some_labels(model, batch):
        labels = batch["labels"].clone()
        labels[batch["ids"][:, 0] % 2 == 0, 2:] = -100
        return next_token(model, {**batch, "labels": labels})

    total = batch * accumulate
    model, rows, _ = small()
    whole = TrainSettings(**{**QUICK, "batch": total})
    fit(model, rows, objective=some_labels, settings=whole)
    other, _, _ = small()
    parts = TrainSettings(**{**QUICK, "batch": batch, "accumulate": accumulate})
    fit(other, rows, objective=some_labels, settings=parts)
    assert largest_difference(weights(model), weights(other)) < 2e-5


def test_training_without_a_run_is_training_with_one(small, tmp_path):
    model, rows, _ = small()
    trained = fit(model, rows, objective=next_token, settings=TrainSettings(**QUICK))
    other, _, _ = small()
    fit(other, rows, objective=next_token, settings=TrainSettings(**QUICK), out=tmp_path / "run")
    assert largest_difference(weights(model), weights(other)) == 0.0
    lines = read_metrics(tmp_path / "run")
    assert [{k: v for k, v in line.items() if k != "elapsed"} for line in lines] == trained.history
    assert read_manifest(tmp_path / "run")["status"] == "done"


class StopAt(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("moment", [1, 5, 11])
def test_killed_and_resumed_is_uninterrupted_to_the_bit(small, tmp_path, moment, dropout):
    settings = TrainSettings(**QUICK, accumulate=2, eval_every=3)
    model, rows, held = small(dropout=dropout)
    whole = fit(model, rows, objective=next_token, settings=settings, evaluate=held)
    other, _, _ = small(dropout=dropout)
    passes = itertools.count()

    def dies(model, batch):
        if model.training and next(passes) == 2 * moment:
            raise StopAt
        return next_token(model, batch)

    run = tmp_path / "run"
    common = {"settings": settings, "evaluate": held, "out": run, "checkpoint_seconds": 0.0}
    with pytest.raises(StopAt):
        fit(other, rows, objective=dies, **common)
    # The checkpoint overwrites the weights; what dropout draws follows from the model's own seed.
    fresh, _, _ = small(dropout=dropout, seed=0 if dropout else 99)
    rows_again = small()[1]
    resumed = fit(fresh, rows_again, objective=next_token, resume=True, **common)
    assert largest_difference(weights(model), weights(fresh)) == 0.0
    assert resumed.evaluation == whole.evaluation
    lines = [{k: v for k, v in line.items() if k != "elapsed"} for line in resumed.history]
    assert lines == whole.history


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(small, tmp_path):
    model, rows, _ = small()

    def interrupts(model, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return next_token(model, batch)

    with pytest.raises(Interrupted, match=r"step 1 of 12; .* --resume"):
        fit(model, rows, objective=interrupts, settings=TrainSettings(**QUICK), out=tmp_path / "run")
    assert read_manifest(tmp_path / "run")["status"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / CHECKPOINT).exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_the_best_weights_or_the_last_are_left(small, tmp_path, keep, in_memory):
    model, rows, _ = small()
    seen = []

    def evaluate(model):
        seen.append(weights(model))
        return {"loss": [3.0, 1.0, 2.0, 1.5][len(seen) - 1]}

    settings = TrainSettings(**QUICK, eval_every=3, keep=keep)
    out = None if in_memory else tmp_path / "run"
    trained = fit(model, rows, objective=next_token, settings=settings, evaluate=evaluate, out=out)
    assert (trained.best_loss, trained.best_step) == (1.0, 6)
    assert trained.evaluation == {"loss": 1.5}
    assert largest_difference(weights(model), seen[1 if keep == "best" else 3]) == 0.0


def test_a_loss_that_is_no_number_stops_with_advice_and_keeps_the_checkpoint(small, tmp_path):
    model, rows, _ = small()
    calls = itertools.count()

    def breaks(model, batch):
        loss, said = next_token(model, batch)
        return (loss * float("nan") if next(calls) == 5 else loss), said

    with pytest.raises(PosterhallError, match=r"not finite at step 6 .* Lower lr"):
        fit(
            model,
            rows,
            objective=breaks,
            settings=TrainSettings(**QUICK),
            out=tmp_path / "run",
            checkpoint_seconds=0.0,
        )
    assert all(torch.isfinite(p).all() for p in model.parameters())
    fresh, _, _ = small()
    again = fit(
        fresh, rows, objective=next_token, settings=TrainSettings(**QUICK), out=tmp_path / "run", resume=True
    )
    assert again.steps == 12


def test_a_checkpoint_of_another_model_is_refused(small, tmp_path):
    from posterhall.train import checkpoint

    model, _, _ = small()
    checkpoint.save(tmp_path / "a.safetensors", model, None, {"step": 3})
    with pytest.raises(DataError, match="another model"):
        checkpoint.load(tmp_path / "a.safetensors", torch.nn.Linear(2, 2))
    (tmp_path / "b.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="damaged checkpoint"):
        checkpoint.load(tmp_path / "b.safetensors", model)


def test_gradient_checkpointing_and_bfloat16_train_as_well(small):
    model, rows, held = small()
    plain = fit(model, rows, objective=next_token, settings=TrainSettings(**QUICK), evaluate=held)
    for given, tolerance in (({"gradient_checkpointing": True}, 1e-5), ({"dtype": "bfloat16"}, 0.05)):
        other, _, _ = small()
        settings = TrainSettings(**QUICK, **given)
        found = fit(other, rows, objective=next_token, settings=settings, evaluate=held)
        assert found.evaluation["loss"] == pytest.approx(plain.evaluation["loss"], abs=tolerance)
        assert all(p.dtype == torch.float32 for p in other.parameters())


def test_documents_are_kept_apart_when_they_are_packed_so(sentences):
    from posterhall.data.packing import Packed
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.data.tokens import from_texts
    from posterhall.models import Decoder, DecoderConfig

    tokens = from_texts(sentences.splitlines(keepends=True)[:40], ByteTokenizer())
    rows = Packed(tokens, context=32, packing="documents")
    model = Decoder(DecoderConfig(vocab_size=258, dim=16, layers=1, heads=2, max_length=32), seed=0)
    trained = fit(model, rows, objective=next_token, settings=TrainSettings(**{**QUICK, "steps": 30}))
    assert trained.loss < 4.5


def test_any_module_and_objective_can_be_trained():
    class Points:
        """y = 3 x, in no tokens."""

        items = 64

        def take(self, first, count):
            x = torch.arange(first, first + count).remainder(7)[:, None].float()
            return {"x": x, "y": 3 * x}

    def squares(model, batch):
        return (model(batch["x"]) - batch["y"]).square().mean(), {}

    model = torch.nn.Linear(1, 1)
    settings = TrainSettings(lr=0.3, batch=16, epochs=60, weight_decay=0.0, clip=0.0)
    trained = fit(model, Points(), objective=squares, settings=settings)
    assert trained.loss < 1e-2
    with pytest.raises(DataError, match="give steps or epochs"):
        fit(model, Points(), objective=squares, settings=TrainSettings(tokens=100))


def test_tensorboard_events_hold_the_logged_numbers(small, tmp_path):
    pytest.importorskip("tensorboardX")
    model, rows, held = small()
    trained = fit(
        model,
        rows,
        objective=next_token,
        settings=TrainSettings(**QUICK),
        evaluate=held,
        out=tmp_path / "run",
        tensorboard=True,
    )
    [file] = (tmp_path / "run" / "tensorboard").iterdir()
    found = scalars(file.read_bytes())
    losses = [(line["step"], line["loss"]) for line in trained.history if "loss" in line]
    assert [step for step, _ in found["loss"]] == [step for step, _ in losses]
    assert [value for _, value in found["loss"]] == pytest.approx([value for _, value in losses])
    assert found["eval_loss"] == [(12, pytest.approx(trained.evaluation["loss"]))]


def scalars(data):
    """Scalars of an event file: records of length, its CRC, event, its CRC (TFRecord)."""
    import struct

    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found = {}
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8)[0] == masked_crc32c(data[at : at + 8])
        record = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc32c(record)
        event = Event.FromString(record)
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        at += 16 + length
    return found


def test_the_state_of_a_checkpoint_is_plain_json(small, tmp_path):
    from safetensors import safe_open

    model, rows, _ = small()

    def dies(model, batch):
        if model.draws == 6:
            raise StopAt
        return next_token(model, batch)

    with pytest.raises(StopAt):
        fit(
            model,
            rows,
            objective=dies,
            settings=TrainSettings(**QUICK),
            out=tmp_path / "run",
            checkpoint_seconds=0.0,
        )
    with safe_open(tmp_path / "run" / "checkpoints" / CHECKPOINT, "pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 6
        assert {"model/embedding", "optimiser/exp_avg/embedding"} <= set(file.keys())


def test_it_ends_where_an_evaluation_is_good_enough_with_the_weights_of_that_moment(small):
    model, rows, held = small()
    asked = []
    settings = TrainSettings(**QUICK, schedule="constant", eval_every=3)
    trained = fit(
        model, rows, objective=next_token, settings=settings, evaluate=held,
        enough=lambda said: asked.append(said["loss"]) or len(asked) == 2,
    )  # fmt: skip
    assert trained.steps == 6
    assert trained.evaluation["loss"] == asked[1]
    plain, rows, held = small()
    shorter = TrainSettings(**{**QUICK, "steps": 6}, schedule="constant", eval_every=3)
    fit(plain, rows, objective=next_token, settings=shorter, evaluate=held)
    assert largest_difference(weights(model), weights(plain)) == 0.0
