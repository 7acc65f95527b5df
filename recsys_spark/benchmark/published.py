"""Rows that others have published for the data sets that can be told by their size, to print beside our own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One published row: who, and its figures by name (``hit_rate`` and ``ndcg`` at 10 for leave-one-out)."""

    system: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Table:
    """Rows of one protocol on one data set."""

    title: str
    rows: tuple[Row, ...]


def _ranked(system: str, hit_rate: float, ndcg: float) -> Row:
    return Row(system, {"hit_rate": hit_rate, "ndcg": ndcg})


# (users, items with events, events) -> leave-one-out, last event test, whole catalogue ranked, history left out
LEAVE_ONE_OUT: dict[tuple[int, int, int], Table] = {
    (22_363, 12_101, 198_502): Table(
        "Amazon 2014 Beauty, leave-one-out",
        (
            _ranked("popularity", 0.0152, 0.0068),
            _ranked("SASRec (BCE, one negative)", 0.0605, 0.0318),
            _ranked("S3-Rec", 0.0647, 0.0327),
            _ranked("TIGER", 0.0648, 0.0384),
            _ranked("EASE, history weighted .7^age", 0.0752, 0.0452),
            _ranked("ActionPiece", 0.0775, 0.0424),
            _ranked("LC-Rec", 0.0791, 0.0438),
            _ranked("FuXi-alpha (re-run)", 0.0809, 0.0451),
            _ranked("SASRec, full cross-entropy", 0.0897, 0.0539),
            _ranked("SASRec, sampled softmax (256)", 0.0921, 0.0531),
            _ranked("eSASRec (256 wide)", 0.0928, 0.0523),
        ),
    ),
    (8_317, 4_344, 58_492): Table(
        "Amazon 2018 Scientific, leave-one-out",
        (
            _ranked("popularity", 0.0261, 0.0172),
            _ranked("TF-IDF of the text", 0.1077, 0.0686),
            _ranked("co-occurrence cosine", 0.1093, 0.0807),
        ),
    ),
    (943, 1_682, 100_000): Table(
        "MovieLens-100K, leave-one-out by time",
        (
            _ranked("TF-IDF of the text", 0.0636, 0.0354),
            _ranked("popularity", 0.0859, 0.0450),
            _ranked("co-occurrence cosine, .8^age", 0.1665, 0.0922),
            _ranked("co-occurrence cosine, .7^age", 0.1739, 0.0982),
        ),
    ),
}

ML100K = Table(
    "MovieLens-100K, recommenders-team protocol",
    tuple(
        Row(name, dict(zip(("map", "ndcg", "precision", "recall"), figures, strict=True)))
        for name, figures in {
            "popularity": (0.055959, 0.252353, 0.228738, 0.113188),
            "SAR": (0.114038, 0.393819, 0.340615, 0.185377),
            "BiVAE": (0.146126, 0.475077, 0.411771, 0.219145),
            "iALS, 64 factors": (0.149144, 0.482904, 0.417497, 0.226612),
            "EASE, lambda 300": (0.149866, 0.484195, 0.422057, 0.229626),
        }.items()
    ),
)
