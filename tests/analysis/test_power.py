import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankexp.analysis.statistics.power import (
    MOST_SEEDS,
    VarianceComponents,
    needed_examples,
    needed_seeds,
    power,
    satterthwaite,
)

TYPICAL = VarianceComponents(seed=5e-5, example=1e-3, residual=0.04, df_per_seed=3)
variances = st.floats(1e-8, 1e-2)


def test_variance_adds_each_component_over_what_averages_it():
    assert VarianceComponents(6, 20, 100).variance(3, 10) == pytest.approx(6 / 3 + 20 / 10 + 100 / 30)


def test_shares_are_parts_of_the_variance():
    shares = VarianceComponents(6, 20, 60, rates=2).shares(3, 10)
    assert shares == pytest.approx((2 / 8, 2 / 8, 2 / 8, 2 / 8))


def test_shares_of_no_variance_are_nan():
    assert all(math.isnan(share) for share in VarianceComponents(0, 0, 0).shares(3, 10))


@given(variances, variances, variances, st.integers(2, 50), st.integers(2, 5000))
def test_shares_add_up_to_one(seed, example, residual, seeds, examples):
    assert sum(VarianceComponents(seed, example, residual).shares(seeds, examples)) == pytest.approx(1)


def test_satterthwaite_by_hand():
    # (6 + 4 - 1)^2 / (36/8 + 16/99 + 1/(4 * 99))
    assert satterthwaite(6, 4, 1, 8, 5, 100) == pytest.approx(81 / (4.5 + 16 / 99 + 1 / 396))


@pytest.mark.parametrize(("mss", "msi", "msr"), [(0, 0, 0), (1, 1, 2), (0.4, 0.4, 5), (0.1, 0.2, 0.3)])
def test_satterthwaite_falls_back_on_the_seeds(mss, msi, msr):
    assert satterthwaite(mss, msi, msr, 8, 5, 100) == 8


def test_satterthwaite_is_never_below_one():
    assert satterthwaite(1, 1, 1.9, 4, 5, 100) == 1


def test_df_is_the_seeds_where_only_seeds_vary():
    assert VarianceComponents(1, 0, 0, df_per_seed=3).df(5, 1000) == pytest.approx(12)
    assert VarianceComponents(1, 0, 0).df(5, 1000) == pytest.approx(4)


def test_power_of_a_plain_t_test():
    # Only seeds vary, so this is a one-sample t test of 10 differences of SD 0.02 against 0.015.
    components = VarianceComponents(0.02**2, 0, 0)
    expected = stats.nct.sf(stats.t.isf(0.05, 9), 9, 0.015 / (0.02 / math.sqrt(10)))
    assert power(components, 10, 1000, 0.015) == pytest.approx(expected)


def test_power_is_the_rate_of_acceptance():
    rng = np.random.default_rng(20)
    seeds, margin, sd, draws = 8, 0.01, 0.012, 40_000
    sample = rng.normal(0, sd, (draws, seeds))
    standard_errors = sample.std(axis=1, ddof=1) / math.sqrt(seeds)
    accepted = sample.mean(axis=1) - stats.t.isf(0.05, seeds - 1) * standard_errors > -margin
    assert power(VarianceComponents(sd**2, 0, 0), seeds, 1000, margin) == pytest.approx(accepted.mean(), abs=0.01)


@pytest.mark.parametrize("df", [1, 2, 5, 12])
def test_power_far_out_joins_the_noncentral_t(df):
    # The two forms meet at a margin of 30 standard errors; a strict level keeps the power below 1 there.
    components = VarianceComponents(seed=df + 1.0, example=0, residual=0)
    below, above = (power(components, df + 1, 1000, margin, level=1e-3) for margin in (29.9999, 30.0001))
    assert below == pytest.approx(above, abs=2e-3)


def test_power_very_far_out_is_a_number():
    assert power(VarianceComponents(1e-8, 1e-8, 1e-8), 6, 2000, 0.002) == pytest.approx(1)
    assert power(VarianceComponents(1e-300, 0, 0), 3, 100, 0.01) == 1


def test_power_without_noise_is_certain():
    assert power(VarianceComponents(0, 0, 0), 3, 100, 0.01) == 1


def test_power_of_hopeless_noise_is_the_level():
    assert power(VarianceComponents(1e6, 0, 0), 5, 100, 0.01, level=0.05) == pytest.approx(0.05, abs=1e-3)


@given(variances, variances, variances, st.integers(3, 30), st.floats(0.001, 0.05))
def test_power_grows_with_the_margin(seed, example, residual, seeds, margin):
    components = VarianceComponents(seed, example, residual)
    small, large = (power(components, seeds, 2000, m) for m in (margin, 2 * margin))
    assert 0 <= small <= large + 1e-12 <= 1 + 1e-12


@given(variances, variances, variances, st.sampled_from([1, 3]))
def test_needed_seeds_is_the_smallest_number_that_does(seed, example, residual, df_per_seed):
    components = VarianceComponents(seed, example, residual, df_per_seed)
    needed = needed_seeds(components, 2000, 0.01)
    if needed is None:
        assert power(components, MOST_SEEDS, 2000, 0.01) < 0.8
    else:
        assert power(components, needed, 2000, 0.01) >= 0.8
        assert needed == 3 or power(components, needed - 1, 2000, 0.01) < 0.8


@given(variances, variances, variances)
def test_needed_examples_is_the_smallest_number_that_does(seed, example, residual):
    components = VarianceComponents(seed, example, residual)
    needed = needed_examples(components, 5, 0.01)
    if needed is not None:
        assert power(components, 5, needed, 0.01) >= 0.8
        assert needed == 2 or power(components, 5, needed - 1, 0.01) < 0.8


def test_seeds_do_not_help_against_few_examples():
    few = VarianceComponents(seed=1e-6, example=0.04, residual=0.01)
    assert needed_seeds(few, 100, 0.01) is None
    assert needed_examples(few, 5, 0.01) > 1000


def test_examples_do_not_help_against_noisy_seeds():
    noisy = VarianceComponents(seed=4e-4, example=1e-3, residual=0.04)
    assert needed_examples(noisy, 3, 0.01) is None
    assert 20 < needed_seeds(noisy, 2000, 0.01) < 40


def test_more_power_and_a_smaller_level_need_more():
    base = needed_seeds(TYPICAL, 2000, 0.01)
    assert needed_seeds(TYPICAL, 2000, 0.01, target=0.95) > base
    assert needed_seeds(TYPICAL, 2000, 0.01, level=0.01) > base
    assert needed_seeds(TYPICAL, 2000, 0.005) > base


def test_pooled_degrees_of_freedom_save_seeds():
    own = VarianceComponents(TYPICAL.seed, TYPICAL.example, TYPICAL.residual, df_per_seed=1)
    assert needed_seeds(TYPICAL, 2000, 0.015) < needed_seeds(own, 2000, 0.015)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: VarianceComponents(-1, 0, 0), "seed variance is -1"),
        (lambda: VarianceComponents(0, math.nan, 0), "example variance is nan"),
        (lambda: VarianceComponents(0, 0, math.inf), "residual variance is inf"),
        (lambda: VarianceComponents(0, 0, 0, 0), "df_per_seed is 0"),
        (lambda: power(TYPICAL, 1, 100, 0.01), "seeds is 1"),
        (lambda: power(TYPICAL, 3, 1, 0.01), "examples is 1"),
        (lambda: power(TYPICAL, 3, 100, 0.0), "margin is 0.0"),
        (lambda: power(TYPICAL, 3, 100, 0.01, 0.5), "level is 0.5"),
        (lambda: needed_seeds(TYPICAL, 100, 0.01, target=1.0), "target is 1.0"),
        (lambda: needed_examples(TYPICAL, 3, 0.01, target=0.05), "target is 0.05"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
