"""Logistic regression on counts: closed forms, a general-purpose optimiser, published values."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats

from posterhall.errors import DataError
from posterhall.stats.logistic import (
    Cells,
    Factor,
    design,
    deviance_table,
    fit,
    log_chi2_tail,
    pairwise,
    separated,
)


def two_by_two(a, b, c, d):
    """a of a + b right with the first level, c of c + d with the second."""
    return Cells.of({"group": ["first", "second"]}, [a, c], [a + b, c + d])


def some_cells(seed=0, levels=(3, 4, 2), most=40):
    rng = np.random.default_rng(seed)
    rows = list(product(*map(range, levels)))
    names = "abc"[: len(levels)]
    trials = rng.integers(1, most, len(rows))
    effects = [rng.normal(size=size) for size in levels]
    eta = [sum(effect[i] for effect, i in zip(effects, row, strict=True)) for row in rows]
    successes = rng.binomial(trials, 1 / (1 + np.exp(-np.array(eta))))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return Cells.of(columns, successes, trials)


def by_optimiser(matrix, k, n, *, penalised):
    """The maximum of the (penalised) likelihood by BFGS, knowing nothing of the gradient."""

    def lost(beta):
        eta = matrix @ beta
        value = k @ eta - n @ np.logaddexp(0, eta)
        if penalised:
            share = 1 / (1 + np.exp(-eta))
            value += 0.5 * np.linalg.slogdet(matrix.T @ ((n * share * (1 - share))[:, None] * matrix))[1]
        return -value

    found = optimize.minimize(lost, np.zeros(matrix.shape[1]), method="BFGS", options={"gtol": 1e-7})
    return found.x, -found.fun


# -- coefficients -----------------------------------------------------------------------------------


def test_a_table_of_two_by_two_gives_the_logarithm_of_its_odds_ratio():
    a, b, c, d = 12, 5, 7, 20
    found = fit(two_by_two(a, b, c, d), ["group"], coding="treatment")
    assert found.coefficients == pytest.approx([math.log(a / b), math.log(c / d) - math.log(a / b)])
    assert math.sqrt(found.covariance[1, 1]) == pytest.approx(math.sqrt(1 / a + 1 / b + 1 / c + 1 / d))
    assert not found.firth


def test_firth_on_a_table_of_two_by_two_adds_half_to_each_count():
    # With a column a cell, Jeffreys' prior is a half of a success and of a failure (Firth 1993).
    found = fit(two_by_two(10, 0, 3, 9), ["group"], coding="treatment")
    assert found.firth
    assert found.coefficients == pytest.approx(
        [math.log(10.5 / 0.5), math.log(3.5 / 9.5) - math.log(10.5 / 0.5)], abs=1e-6
    )


@pytest.mark.parametrize("coding", ["sum", "treatment"])
@pytest.mark.parametrize("firth", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_coefficients_are_those_of_a_general_optimiser(coding, firth, seed):
    cells = some_cells(seed)
    found = fit(cells, ["a", "b", "c", "a:c"], coding=coding, firth=firth)
    beta, best = by_optimiser(found.design.matrix, cells.successes, cells.trials, penalised=firth)
    assert found.log_likelihood == pytest.approx(best, abs=1e-6)
    assert found.coefficients == pytest.approx(beta, abs=2e-3)


def test_firth_agrees_with_the_optimiser_where_cells_are_separated():
    cells = Cells.of({"a": [0, 0, 1, 1, 2], "b": [0, 1, 0, 1, 1]}, [5, 7, 0, 0, 3], [5, 7, 6, 4, 9])
    found = fit(cells, ["a", "b"])
    assert found.firth
    beta, best = by_optimiser(found.design.matrix, cells.successes, cells.trials, penalised=True)
    assert found.log_likelihood == pytest.approx(best, abs=1e-7)
    assert found.coefficients == pytest.approx(beta, abs=1e-3)


def test_sum_coded_effects_of_a_factor_add_up_to_nothing():
    cells = some_cells()
    found = fit(cells, ["a", "b"])
    shares = fit(cells, ["a", "b"], coding="treatment")
    # The same model in other words: equal fitted log-odds.
    assert found.design.matrix @ found.coefficients == pytest.approx(
        shares.design.matrix @ shares.coefficients, abs=1e-6
    )
    at = found.design.columns("a")
    effects = [*found.coefficients[at], -found.coefficients[at].sum()]
    other = [0.0, *shares.coefficients[shares.design.columns("a")]]
    assert np.diff(effects) == pytest.approx(np.diff(other), abs=1e-6)


def test_large_effects_do_not_overflow():
    found = fit(two_by_two(10**9, 1, 1, 10**9), ["group"], coding="treatment")
    assert found.coefficients[1] == pytest.approx(-2 * math.log(10**9))


# -- tests of terms ---------------------------------------------------------------------------------


def test_the_statistic_of_a_table_of_two_by_two_is_its_g():
    counts = np.array([[12, 5], [7, 20]])
    g, p, df, _ = stats.chi2_contingency(counts, correction=False, lambda_="log-likelihood")
    [step] = deviance_table(two_by_two(*counts.ravel()), ["group"])
    assert (step.chi2, step.df, step.p) == (pytest.approx(g), df, pytest.approx(p))


def test_a_published_table_of_deviances():
    # Agresti, Categorical Data Analysis (2nd ed.), table 2.6 and §5.4: verdicts of death by the defendant's
    # and the victim's race: 53 of 467, 11 of 48, 0 of 16, 4 of 143. Residual deviance 0.38 on 1 df; of the
    # defendant's race after the victim's 5.39 - 0.38 (p. 202).
    cells = Cells.of(
        {"victim": ["w", "w", "b", "b"], "defendant": ["w", "b", "w", "b"]},
        [53, 11, 0, 4],
        [467, 48, 16, 143],
    )
    steps = deviance_table(cells, ["victim", "defendant"])
    assert steps[1].deviance == pytest.approx(0.38, abs=0.005)
    assert steps[1].df_left == 1
    assert steps[1].chi2 == pytest.approx(5.39 - 0.38, abs=0.015)
    found = fit(cells, ["victim", "defendant"], coding="treatment")
    assert found.coefficients[1:] == pytest.approx([-2.404, 0.868], abs=0.001)


def test_statistics_of_terms_add_up_to_that_of_all_together():
    cells = some_cells(4)
    steps = deviance_table(cells, ["a", "b", "c", "a:b"])
    assert [step.df for step in steps] == [2, 3, 1, 6]
    nothing = fit(cells, []).deviance
    assert sum(step.chi2 for step in steps) == pytest.approx(nothing - steps[-1].deviance)
    assert steps[-1].df_left == 24 - 13


def test_rows_one_by_one_and_counts_give_the_same():
    cells = some_cells(5, levels=(2, 3), most=9)
    rows = [
        (cells.factors["a"].codes[i], cells.factors["b"].codes[i], won)
        for i in range(len(cells.trials))
        for won in [1] * int(cells.successes[i]) + [0] * int(cells.trials[i] - cells.successes[i])
    ]
    np.random.default_rng(0).shuffle(rows)
    again = Cells.of({"a": [r[0] for r in rows], "b": [r[1] for r in rows]}, [r[2] for r in rows])
    assert len(again.trials) == len(cells.trials)
    for one, other in zip(deviance_table(cells, ["a", "b"]), deviance_table(again, ["a", "b"]), strict=True):
        assert one.chi2 == pytest.approx(other.chi2)


def test_what_makes_no_difference_is_rarely_found_to_make_one():
    rng = np.random.default_rng(1)
    ps = []
    for _ in range(300):
        won = rng.binomial(50, 0.4, 12)
        cells = Cells.of({"a": np.repeat([0, 1, 2], 4).tolist()}, won, np.full(12, 50))
        ps.append(deviance_table(cells, ["a"])[0].p)
    assert stats.kstest(ps, "uniform").pvalue > 0.001


def test_nested_factors_count_only_what_they_add():
    # A category says nothing beyond its conditions: after them it has no column left.
    cells = Cells.of(
        {"condition": ["x", "y", "z"], "category": ["one", "one", "two"]}, [3, 5, 9], [10, 10, 10]
    )
    before, after = deviance_table(cells, ["condition", "category"])
    assert (before.df, after.df, after.p) == (2, 0, 1.0)
    category, condition = deviance_table(cells, ["category", "condition"])
    assert (category.df, condition.df) == (1, 1)
    assert category.chi2 + condition.chi2 == pytest.approx(before.chi2)


def test_combinations_that_never_occur_take_no_degrees_of_freedom():
    cells = Cells.of({"a": [0, 0, 1], "b": [0, 1, 0]}, [3, 4, 5], [10, 10, 10])
    assert [step.df for step in deviance_table(cells, ["a", "b", "a:b"])] == [1, 1, 0]


def test_probabilities_are_adjusted_for_their_number():
    steps = deviance_table(some_cells(7), ["a", "b"])
    low, high = sorted(step.p for step in steps)
    assert sorted(step.p_holm for step in steps) == pytest.approx(
        [min(1, 2 * low), max(high, min(1, 2 * low))]
    )


# -- separation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "expected"),
    [
        ([5, 0], True),  # one level always, the other never
        ([5, 2], True),  # one always: quasi-complete
        ([0, 2], True),
        ([4, 2], False),
    ],
)
def test_separation_of_two_groups(successes, expected):
    matrix = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert separated(matrix, successes, [5, 5]) is expected


def test_a_full_cell_is_no_separation_where_others_share_its_effects():
    cells = Cells.of({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1]}, [5, 3, 2, 1], [5, 5, 5, 5])
    assert not separated(design(cells, ["a", "b"]).matrix, cells.successes, cells.trials)
    assert separated(design(cells, ["a", "b", "a:b"]).matrix, cells.successes, cells.trials)


def test_separation_is_found_exactly_when_the_likelihood_has_no_maximum():
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(60):
        trials = rng.integers(1, 4, 6)
        cells = Cells.of(
            {"a": [0, 0, 0, 1, 1, 1], "b": [0, 1, 2, 0, 1, 2]}, rng.binomial(trials, 0.5), trials
        )
        matrix = design(cells, ["a", "b"]).matrix
        k, n = cells.successes, cells.trials

        def lost(beta, matrix=matrix, k=k, n=n):
            eta = matrix @ beta
            slope = matrix.T @ (n / (1 + np.exp(-eta)) - k)
            return n @ np.logaddexp(0, eta) - k @ eta, slope

        # Without a maximum the coefficients go as far as they may.
        bounds = [(-15, 15)] * matrix.shape[1]
        found = optimize.minimize(
            lost, np.zeros(len(bounds)), jac=True, bounds=bounds, options={"ftol": 0, "gtol": 1e-12}
        )
        far = np.abs(found.x).max() > 8
        assert separated(matrix, cells.successes, cells.trials) is bool(far)
        seen.add(bool(far))
    assert seen == {True, False}


def test_tests_under_separation_are_of_the_penalised_likelihood():
    a, b, c, d = 10, 0, 3, 9
    [step] = deviance_table(two_by_two(a, b, c, d), ["group"], coding="treatment")
    assert step.firth
    assert step.deviance is None

    def penalised(share_1, share_2):
        # A column a cell: log L + 1/2 log|I| is that of a table with half more in each count.
        counts = ((a + 0.5) * math.log(share_1), (b + 0.5) * math.log(1 - share_1))
        return sum(counts) + (c + 0.5) * math.log(share_2) + (d + 0.5) * math.log(1 - share_2)

    together = (a + c + 1) / (a + b + c + d + 2)
    expected = 2 * (penalised(10.5 / 11, 3.5 / 13) - penalised(together, together))
    assert step.chi2 == pytest.approx(expected, abs=1e-6)


def test_once_separated_all_later_terms_are_penalised():
    cells = Cells.of({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1]}, [2, 3, 0, 0], [5, 5, 5, 5])
    assert [step.firth for step in deviance_table(cells, ["b", "a"])] == [False, True]
    assert [step.firth for step in deviance_table(cells, ["a", "b"])] == [True, True]


def test_all_right_and_all_wrong_are_no_failure():
    for won in (0, 5):
        cells = Cells.of({"a": [0, 1]}, [won, won], [5, 5])
        [step] = deviance_table(cells, ["a"])
        assert step.chi2 == pytest.approx(0, abs=1e-9)
        assert step.p == pytest.approx(1)


def test_ordinary_likelihood_is_refused_where_it_has_no_maximum():
    with pytest.raises(DataError, match="without exception"):
        fit(two_by_two(5, 0, 2, 3), ["group"], firth=False)


# -- intervals --------------------------------------------------------------------------------------


def test_profile_interval_ends_where_the_likelihood_ratio_test_rejects():
    cells = some_cells(2, levels=(2, 3))
    found = fit(cells, ["a", "b"])
    interval = found.profile("a[0]")
    assert interval.low < interval.estimate < interval.high
    matrix, k, n = found.design.matrix, cells.successes, cells.trials
    for end in (interval.low, interval.high):
        rest = np.delete(matrix, 1, axis=1)

        def lost(beta, end=end, rest=rest):
            eta = rest @ beta + matrix[:, 1] * end
            return -(k @ eta - n @ np.logaddexp(0, eta))

        held = optimize.minimize(lost, np.zeros(rest.shape[1]), options={"gtol": 1e-8})
        assert 2 * (found.log_likelihood + held.fun) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-4)


def test_intervals_agree_where_there_is_much_data():
    found = fit(two_by_two(50_000, 40_000, 30_000, 60_000), ["group"])
    wald, profile = found.wald("group[first]"), found.profile("group[first]")
    assert (wald.low, wald.high) == (
        pytest.approx(profile.low, rel=1e-3),
        pytest.approx(profile.high, rel=1e-3),
    )


def test_profile_interval_is_finite_with_firth():
    interval = fit(two_by_two(10, 0, 3, 9), ["group"], coding="treatment").profile("group[second]")
    assert -math.inf < interval.low < interval.estimate < interval.high < 0


def test_pairs_of_levels_are_the_odds_ratios_whatever_the_coding():
    won, tried = [12, 7, 9], [17, 27, 30]
    for coding in ("sum", "treatment"):
        cells = Cells.of({"g": ["x", "y", "z"]}, won, tried)
        pairs = pairwise(fit(cells, ["g"], coding=coding), "g")
        odds = [math.log(w / (t - w)) for w, t in zip(won, tried, strict=True)]
        assert [(pair.a, pair.b) for pair in pairs] == [("x", "y"), ("x", "z"), ("y", "z")]
        assert [pair.log_odds.estimate for pair in pairs] == pytest.approx(
            [odds[0] - odds[1], odds[0] - odds[2], odds[1] - odds[2]]
        )
        assert all(pair.p_holm >= pair.p for pair in pairs)


# -- the tail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [0.0, 1.0, 30.0, 700.0, 1e4, 1e6])
def test_tails_have_closed_forms_for_two_and_four_degrees(x):
    assert log_chi2_tail(x, 2) == pytest.approx(-x / 2, rel=1e-12, abs=1e-12)
    assert log_chi2_tail(x, 4) == pytest.approx(-x / 2 + math.log1p(x / 2), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("df", [1, 3, 5, 17, 100])
@pytest.mark.parametrize("x", [0.5, 20.0, 150.0, 400.0])
def test_tails_are_those_of_scipy_where_it_has_them(x, df):
    assert log_chi2_tail(x, df) == pytest.approx(math.log(stats.chi2.sf(x, df)), rel=1e-9, abs=1e-12)


def test_tiny_probabilities_keep_their_logarithm():
    [step] = deviance_table(two_by_two(90_000, 10_000, 10_000, 90_000), ["group"])
    assert step.p == 0.0
    assert step.log10_p == pytest.approx((-step.chi2 / 2) / math.log(10), rel=1e-3)


# -- what cannot be done ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (["grapf"], "no factor 'grapf'.*graph"),
        (["graph:n"], "give 'graph' before it"),
        (["graph", "graph"], "give each once"),
        (["graph", "graph:graph"], "give each once"),
    ],
)
def test_terms_that_are_none_say_why(terms, message):
    cells = Cells.of({"graph": ["A", "B"], "n": [1, 2]}, [1, 2], [3, 3])
    with pytest.raises(DataError, match=message):
        deviance_table(cells, terms)


def test_counts_that_are_none_say_why():
    with pytest.raises(DataError, match="no rows"):
        Cells.of({}, [])
    with pytest.raises(DataError, match="may succeed"):
        Cells.of({"a": [0, 1]}, [4, 1], [3, 3])
    with pytest.raises(DataError, match="2 rows"):
        Cells.of({"a": [0, 1]}, [1, 1, 0])
    with pytest.raises(DataError, match="cannot be compared"):
        pairwise(fit(Cells.of({"a": [0, 1]}, [1, 2], [3, 3]), ["a"]), "b")


def test_levels_that_do_not_occur_are_left_out():
    factor = Factor(("x", "y", "z"), np.array([2, 0, 2]))
    assert Cells.of({"a": factor}, [1, 0, 1]).factors["a"].levels == ("x", "z")
