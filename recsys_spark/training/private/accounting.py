"""How much noise a promise of privacy needs, and how much of it some steps have used up: the one place that knows opacus.

It is imported where it is asked: every rank of every training loads this module, and opacus takes a second.
"""

from __future__ import annotations

import warnings

from recsys_spark.config.privacy import PrivacySettings
from recsys_spark.errors import ConfigError

_DELTA_SHARE = 0.1  # of 1 / users: at that delta one could as well publish somebody now and then


def delta_of(settings: PrivacySettings, num_users: int) -> float:
    """The delta that is asked for; where none is, a tenth of 1 / users."""
    return _DELTA_SHARE / max(num_users, 1) if settings.delta is None else settings.delta


def noise_multiplier(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Standard deviation of the noise, in lengths of one user's gradient, for ``steps`` steps that draw each user with chance
    ``sample_rate`` to be (epsilon, delta) private (Gopi et al. 2021; add or remove one user).

    Raises:
        ConfigError: no noise is enough.
    """
    from opacus.accountants.utils import get_noise_multiplier

    asked = {"target_epsilon": epsilon, "target_delta": delta, "sample_rate": sample_rate, "steps": steps}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders and roundings inside
        try:
            return float(get_noise_multiplier(**asked, accountant="prv"))
        except ValueError as error:
            drawn = f"{steps} steps that draw a user with chance {sample_rate:.3g}"
            found = f"epsilon {epsilon:g} with delta {delta:g} in {drawn}: {error}"
            raise ConfigError("[train.privacy]", found, do="raise epsilon, or lower users_per_step or epochs") from None


def spent(multiplier: float, delta: float, sample_rate: float, steps: int) -> float:
    """The epsilon that ``steps`` such steps have used up; 0 before the first."""
    from opacus.accountants import PRVAccountant

    if steps == 0:
        return 0.0
    accountant = PRVAccountant()
    accountant.history = [(multiplier, sample_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))
