"""What is counted, what it costs, and that a budget is kept."""

from __future__ import annotations

import asyncio

import pytest
from fakes import Counting

from posterhall.errors import DataError, UsageError
from posterhall.lm import Budget, BudgetExceeded, Cached, EchoLM, Meter, Metered, Request, Store, Usage, stack
from posterhall.lm.flow import gather
from posterhall.lm.prices import Price, price_of, table


def test_a_prompt_counts_once_however_many_samples_it_has():
    lm = Metered(Counting(), price=Price(input=2.0, output=10.0, cached_input=1.0))
    lm.generate([Request("p", n=5), Request("q")])
    usage = lm.meter.usage
    assert (usage.calls, usage.samples) == (2, 6)
    assert (usage.tokens_in, usage.tokens_cached, usage.tokens_out) == (20, 8, 18)
    assert usage.tokens == 38
    assert usage.cost == pytest.approx((12 * 2 + 8 * 1 + 18 * 10) / 1e6)


def test_an_unknown_price_is_unknown_and_not_nothing():
    lm = Metered(Counting())
    assert lm.meter.usage.cost == 0
    lm.generate([Request("p")])
    assert lm.meter.usage.cost is None
    assert (lm.meter.usage + Usage()).cost is None


def test_the_paper_s_price_of_a_game_of_24():
    # Yao et al. 2023, table 7: 5.5k tokens of completion, $0.74; its 1.4k of prompt are 13.9k in the log.
    assert price_of("gpt-4", table()).cost(13_879, 5_479) == pytest.approx(0.745, abs=0.001)


def test_usages_add_and_subtract():
    a, b = Usage(calls=3, tokens_in=5, cost=1.0), Usage(calls=1, tokens_in=2, cost=0.25)
    assert (a + b) - b == a
    assert (a - b).cost == 0.75


def test_what_reads_texts_is_counted_as_estimated():
    lm = Metered(Counting())
    lm.score("12345678", ["1234"])
    lm.embed(["1234567"])
    lm.embed([])
    usage = lm.meter.usage
    assert (usage.calls, usage.tokens_in, usage.tokens_estimated) == (2, 5, 5)


def test_what_stands_around_a_model_can_what_it_can(tmp_path):
    class Follows(Counting):
        enforces_schema = True

        def count(self, texts):
            return [7 for _ in texts]

    around = stack.connect(Follows(), cache=tmp_path / "cache", log=tmp_path / "log")
    assert around.enforces_schema
    assert around.count(["a", "b"]) == [7, 7]
    assert stack.connect(Counting(), cache=False).count(["a"]) is None


@pytest.mark.parametrize("width", [1, 7, 64])
def test_calls_stop_exactly_at_the_budget(width):
    inner = Counting(pause=0.001)
    lm = Metered(inner, Meter(Budget(calls=20)), width=width)
    with pytest.raises(BudgetExceeded, match="20 calls is used up: 20 calls, 260 tokens") as caught:
        lm.generate([Request(f"p{i}") for i in range(100)])
    assert caught.value.limit == "calls"
    assert len(inner.asked) == 20
    assert lm.meter.usage.samples == 20  # what was under way was waited for


@pytest.mark.parametrize(("budget", "limit"), [(Budget(tokens=500), "tokens"), (Budget(cost=500e-6), "cost")])
@pytest.mark.parametrize("width", [1, 8, 32])
def test_tokens_and_money_are_exceeded_by_no_more_than_what_is_under_way(budget, limit, width):
    lm = Metered(Counting(pause=0.001), Meter(budget), price=Price(1.0, 1.0), width=width)
    with pytest.raises(BudgetExceeded) as caught:
        lm.generate([Request(f"p{i}") for i in range(300)])
    assert caught.value.limit == limit
    assert 500 <= lm.meter.usage.tokens < 500 + 13 * width


def test_time_ends_too():
    now = [0.0]
    lm = Metered(Counting(), Meter(Budget(seconds=10), clock=lambda: now[0]))
    lm.generate([Request("p")])
    now[0] = 10.0
    with pytest.raises(BudgetExceeded, match="10 seconds"):
        lm.generate([Request("p")])


def test_a_budget_in_money_needs_a_price():
    lm = Metered(Counting(), Meter(Budget(cost=1.0)))
    lm.generate([Request("p")])
    with pytest.raises(BudgetExceeded, match="price is unknown"):
        lm.generate([Request("p")])
    with pytest.raises(UsageError, match="counting"):
        stack.connect(Counting(), budget=Budget(cost=1.0))


@pytest.mark.parametrize("wrong", [{"calls": -1}, {"cost": float("nan")}, {"seconds": float("inf")}])
def test_a_budget_that_is_none_is_refused(wrong):
    with pytest.raises(DataError, match="budget"):
        Budget(**wrong)


def test_failed_calls_are_counted_as_such():
    lm = Metered(Counting(fail=lambda request: DataError("no")))
    with pytest.raises(DataError):
        lm.generate([Request("p")])
    assert (lm.meter.usage.calls, lm.meter.usage.failed, lm.meter.usage.tokens) == (1, 1, 0)


def test_a_scope_counts_what_its_own_tasks_ask():
    meter = Meter()
    lm = Metered(Counting(pause=0.001), meter)

    async def part(n):
        with meter.scope() as tally:
            await lm.agenerate([Request(f"{n} {i}") for i in range(n)])
            with meter.scope() as inner:
                await gather(lambda _: lm.agenerate([Request("x")]), range(2), width=2)
            assert inner.usage.calls == 2
        return tally.usage.calls

    assert asyncio.run(gather(part, [1, 5, 9], width=3)) == [3, 7, 11]
    assert meter.usage.calls == 21


def test_a_scope_counts_what_is_asked_synchronously():
    meter = Meter()
    lm = Metered(Counting(), meter)
    lm.generate([Request("before")])
    with meter.scope() as tally:
        lm.generate([Request("a"), Request("b")])
    lm.generate([Request("after")])
    assert (tally.usage.calls, meter.usage.calls) == (2, 4)


def test_scopes_of_one_meter_do_not_count_for_another():
    one, two = Meter(), Meter()
    judge = Metered(Counting(), two)
    with one.scope() as tally:
        judge.generate([Request("p")])
    assert (tally.usage.calls, two.usage.calls) == (0, 1)


def test_a_scope_has_a_budget_of_its_own():
    meter = Meter(Budget(calls=5))
    lm = Metered(Counting(), meter)
    for _ in range(2):
        with meter.scope(Budget(calls=2), "problem"), pytest.raises(BudgetExceeded, match="problem"):
            lm.generate([Request(f"p{i}") for i in range(3)])
    with pytest.raises(BudgetExceeded, match="run"):
        lm.generate([Request("q"), Request("r")])
    assert meter.usage.calls == 5


def test_what_the_cache_saves_is_told_apart(tmp_path):
    inner = Counting()
    metered = Metered(inner, price=Price(1.0, 10.0))
    lm = Cached(metered, Store(tmp_path / "c"), hit=metered.hit)
    lm.generate([Request("p", n=2)])
    paid = metered.meter.usage
    lm.generate([Request("p", n=2)])
    assert metered.meter.usage - paid == Usage(
        calls_saved=1, tokens_in_saved=10, tokens_out_saved=6, cost_saved=pytest.approx(70e-6)
    )
    lm.generate([Request("p", n=3)])  # the prompt is paid for again, two samples are not
    saved = metered.meter.usage - paid
    assert (saved.calls, saved.calls_saved, saved.tokens_in, saved.tokens_out_saved) == (1, 1, 10, 12)
    assert saved.cost_without_cache == pytest.approx((10 + 30 + 10 + 120) / 1e6)
    lm.close()


def test_who_shares_an_answer_is_told_it_was_saved(tmp_path):
    metered = Metered(Counting(pause=0.005))
    lm = Cached(metered, Store(tmp_path / "c"), hit=metered.hit)
    lm.generate([Request("p")] * 4)
    assert (metered.meter.usage.calls, metered.meter.usage.calls_saved) == (1, 3)
    lm.close()


# -- prices -----------------------------------------------------------------------------------------


def test_a_model_is_found_by_provider_address_and_date():
    prices = table()
    for name in ("gpt-4o", "openai/gpt-4o", "http://proxy/v1#openai/gpt-4o", "gpt-4o-2024-11-20"):
        assert price_of(name, prices) == prices["gpt-4o"]
    assert price_of("gpt-4o-super", prices) is None
    assert price_of("llama", prices) is None


def test_every_shipped_price_is_dated():
    assert all(each.as_of for each in table().values())


def test_own_prices_go_before_the_shipped_ones(tmp_path):
    own = tmp_path / "prices.yaml"
    own.write_text("mine: {input: 1, output: 2}\ngpt-4: {input: 3, output: 4, as_of: 2026-01-02}\n")
    found = table(own)
    assert found["mine"] == Price(1.0, 2.0)
    assert found["gpt-4"] == Price(3.0, 4.0, as_of="2026-01-02")
    assert "gpt-4o" in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: 5", "mine: write"),
        ("mine: {input: 1}", "output is missing"),
        ("mine: {input: 1, output: -2}", "output is -2"),
        ("mine: {input: true, output: 2}", "input is True"),
        ("mine: {inptu: 1, output: 2}", "Did you mean: input"),
        ("mine: {input: 1, output: .inf}", "output is inf"),
        ("- a", "table of prices"),
        ("a: [", "not valid YAML"),
        ("mine: {input: 1, output: 2, as_of: 5}", "as_of"),
    ],
)
def test_a_wrong_price_is_named(tmp_path, text, said):
    own = tmp_path / "prices.yaml"
    own.write_text(text)
    with pytest.raises(DataError, match=said):
        table(own)


def test_a_model_on_this_machine_costs_nothing():
    lm = stack.connect("echo", budget=Budget(cost=0.01))
    lm.generate([Request("p")])
    assert lm.usage.cost == 0
    other = stack.connect(EchoLM())
    other.generate([Request("p")])
    assert other.usage.cost is None  # nobody said where it is
