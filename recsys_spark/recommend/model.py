"""The model version whose vectors a run scores with, and the weights its partners are fused with."""

from __future__ import annotations

from dataclasses import dataclass

from recsys_spark.config.serving import RecommendSettings
from recsys_spark.errors import ConfigError
from recsys_spark.recommend.fusion import Fusion

POPULARITY = "popularity"
KNOWN = ("encoder", "cooccurrence", "transitions", "ease", "als", "text", "popularity")
# where nothing was chosen on validation
PRIOR = {"encoder": 1.0, "cooccurrence": 0.3, "transitions": 0.1, "ease": 0.3, "als": 0.1, "text": 0.1, "popularity": 0.1}
# of users of whom only a profile text is known, likewise; popularity orders the items that no word of it reaches
PROFILE = {"text": 1.0, "encoder": 1.0, "popularity": 0.1}


@dataclass(frozen=True)
class ModelRef:
    """A registered model version, as the embedding tables name it, and the namespace of these where it is another than that of
    the counts."""

    name: str
    version: int
    namespace: str | None = None


def fusion_weights(settings: RecommendSettings, given: dict[str, float] | None, has_model: bool) -> dict[str, float]:
    """The weights of a run: those given by the caller, else the config's, else a prior; only of partners that take part.

    Raises:
        ConfigError: a weight for a partner that does not exist, a weight that is not finite, or no weight above 0.
    """
    wanted = given if given is not None else (settings.weights or PRIOR)
    _check("fusion weights", wanted, KNOWN)
    part: dict[str, float] = {
        name: float(wanted[name]) for name in KNOWN if name in settings.partners and wanted.get(name, 0.0) > 0
    }
    if not has_model:
        part.pop("encoder", None)
    if not part and (not wanted or given is None):
        part = {name: PRIOR[name] for name in KNOWN if name in settings.partners and (has_model or name != "encoder")}
    if not part:
        raise ConfigError("fusion weights", "no partner takes part", "a weight above 0", "check recommend.partners and weights")
    return part


def profile_weights(settings: RecommendSettings, given: dict[str, float] | None) -> dict[str, float]:
    """The weights for users of whom only a profile text is known: the config's, else those given, else a prior.

    Raises:
        ConfigError: a weight for a partner that knows nothing of such users, or one that is not finite.
    """
    wanted = settings.profile_weights or given or PROFILE
    _check("recommend.profile_weights", wanted, tuple(PROFILE))
    return {name: float(weight) for name, weight in wanted.items() if weight > 0}


def _check(where: str, weights: dict[str, float], known: tuple[str, ...]) -> None:
    for name, weight in weights.items():
        if name not in known:
            raise ConfigError(where, f"unknown partner '{name}'", f"one of {', '.join(known)}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(where, f"{name} = {weight}", "a finite number, 0 or more")


def usable(settings: RecommendSettings, given: Fusion | None, has_model: bool) -> Fusion:
    """The fusion of a run (see ``fusion_weights``): segments keep only partners that take part.

    Raises:
        ConfigError: see ``fusion_weights``.
    """
    weights = fusion_weights(settings, None if given is None else given.weights, has_model)
    profile = profile_weights(settings, None if given is None else given.profile)
    half_life = half_life_days(settings, given)
    if given is None:
        return Fusion(weights, profile=profile, half_life_days=half_life)
    segments = {name: {p: w for p, w in own.items() if p in weights} for name, own in given.segments.items()}
    kept = {name: own for name, own in segments.items() if own}
    decays = given.decays if settings.history_decay is None else {}
    return Fusion(weights, kept, given.items, decays, profile, half_life)


def half_life_days(settings: RecommendSettings, given: Fusion | None) -> float | None:
    """After which an event counts half in what is popular: the config's, else the fusion's; None: all count alike."""
    if settings.popularity_half_life_days is not None:
        return settings.popularity_half_life_days or None
    return None if given is None else given.half_life_days
