"""Exact intervals of proportions, which have a width where a bootstrap has none: at 0 and 1."""

from scipy import special


def exact_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a proportion by Clopper and Pearson.

    Args:
      share: observed, in [0, 1].
      count: of independent observations, above 0. `share * count` need be no whole number: with an
        effective sample size in place of the observations this is Korn and Graubard's interval.

    Returns:
      (low, high), in [0, 1].

    References:
      Clopper and Pearson 1934, "The use of confidence or fiducial limits", Biometrika 26.
      Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of
      positive counts estimated from survey data", Survey Methodology 24.
    """
    hits, misses = share * count, (1 - share) * count
    low = special.betaincinv(hits, misses + 1, 0.025) if hits else 0.0
    high = special.betaincinv(hits + 1, misses, 0.975) if misses else 1.0
    return float(low), float(high)
