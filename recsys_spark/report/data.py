"""What a run report shows, as plain values: collecting needs Spark, drawing does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Curve = list[list[float]]  # [x, y] points


@dataclass(frozen=True)
class Fates:
    """What became of the rows read for one table (DESIGN promise 2)."""

    table: str
    files: int
    read: int
    kept: int
    merged: int
    known: int
    quarantined: int

    @property
    def lost(self) -> int:
        """Rows whose fate is not accounted for; must be 0."""
        return self.read - self.kept - self.merged - self.known - self.quarantined


@dataclass(frozen=True)
class Metric:
    """One row of table metrics."""

    system: str
    name: str
    k: int
    segment: str
    value: float
    low: float | None = None
    high: float | None = None
    num_users: int = 0


@dataclass(frozen=True)
class Reason:
    """Why an item is in a list, with its share of the score."""

    kind: str
    text: str
    share: float


@dataclass(frozen=True)
class Listed:
    """One place of a list."""

    rank: int
    item_id: str
    title: str
    score: float
    source: str = ""
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """A user or an item with its list; ``history`` holds titles, the newest first."""

    ref_id: str
    title: str
    listed: list[Listed]
    history: list[str] = field(default_factory=list)
    num_events: int = 0


@dataclass(frozen=True)
class StageRow:
    """The newest finished run of one stage in one namespace."""

    stage: str
    namespace: str
    seconds: float
    finished_at: str
    rows: dict[str, int]
    fingerprint: str
    run_id: str = ""


@dataclass(frozen=True)
class ProbabilityRow:
    """How true one kind of probability is on held-out rows: log loss in nats, expected calibration error."""

    name: str
    when: str  # which probabilities: as learned, calibrated, of the base rate
    log_loss: float
    ece: float
    rows: int


@dataclass(frozen=True)
class ReportData:
    """Everything on the page. What a night does not have stays empty, and its section says so."""

    name: str
    as_of: str
    run_id: str
    eval_namespace: str
    code_version: str
    model_name: str = ""
    model_version: int | None = None
    gate_passed: bool | None = None
    gate_reason: str = ""
    publishes: str = ""
    gate_metric: str = "ndcg"
    gate_k: int = 10
    confidence: float = 0.95
    cutoff: str = ""
    counts: dict[str, Any] = field(default_factory=dict)  # facts of ingest: num_events, num_users, ...
    fates: list[Fates] = field(default_factory=list)
    quarantine: list[tuple[str, str, int]] = field(default_factory=list)  # table, reason, rows
    training: dict[str, Any] = field(default_factory=dict)  # facts of train but its curves
    loss_curve: Curve = field(default_factory=list)
    recall_curve: Curve = field(default_factory=list)
    probabilities: list[ProbabilityRow] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)  # of the profile tower: recall, recall_as_item, ..., k, users
    metrics: list[Metric] = field(default_factory=list)
    num_targets: int = 0
    targets_out_of_reach: int = 0  # that no list may hold, by filters and rules
    item_events: list[float] = field(default_factory=list)  # per group of items, most popular first: events of the group
    item_places: list[float] = field(default_factory=list)  # and how often its items are recommended
    searches: dict[str, dict[str, Any]] = field(default_factory=dict)  # how the neighbours of items and users were found
    weights: dict[str, float] = field(default_factory=dict)
    fusion: dict[str, Any] = field(default_factory=dict)  # as fusion.json has it
    new_items: dict[str, Any] = field(default_factory=dict)  # per_ten, eagerness, demand, loss, share_of_lists, ...
    rerank: dict[str, Any] = field(default_factory=dict)  # of the published lists: diversity, max_per_ten ...
    diversities: list[tuple[float, float, float]] = field(default_factory=list)  # tried on validation: NDCG@10, distance of items
    samples: list[Sample] = field(default_factory=list)
    neighbours: list[Sample] = field(default_factory=list)
    stages: list[StageRow] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    published_at: str = ""
