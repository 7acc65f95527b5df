"""Where a training stands, and when it has done enough."""

from __future__ import annotations

from dataclasses import dataclass

_PACE_STEPS = 20  # are timed before they tell how many there is time for
STEPS, PATIENCE, TIME = "all epochs done", "no better epoch", "out of time"


def planned_steps(step: int, seconds: float, first_epoch: int, total: int, max_minutes: float) -> int:
    """Steps that a training may count on, for its learning rates to come down in time: ``total``; where at the pace of its
    first ``step`` steps not even the first epoch will be done within ``max_minutes``, those that will."""
    if step < _PACE_STEPS:
        return total
    in_time = int(step * 60 * max_minutes / seconds)
    return total if in_time >= min(first_epoch, total) else max(in_time, step)


@dataclass
class Progress:
    """Where a training stands; goes into every checkpoint."""

    step: int = 0  # steps done
    epochs: int = 0  # whole ones done
    best_epoch: int | None = None  # from 0
    best_recall: float | None = None
    epochs_without_better: int = 0
    seconds: float = 0.0  # of training, over all attempts
    wait_seconds: float = 0.0  # of these, waiting for the feed
    stopped: str = ""  # why it is finished: STEPS, PATIENCE or TIME; empty: it is not

    @property
    def finished(self) -> bool:
        return bool(self.stopped)

    def stop(self, total_steps: int, patience: int, seconds: float, max_minutes: float | None) -> None:
        """After ``epoch_done``: whether that epoch was the last, and why.

        Args:
            seconds: of training so far, the same number on every rank.
            max_minutes: no epoch starts that would, at the mean pace of those before, end later, and one that takes longer
                than these did is cut short, as the first may have to be; None: no limit.
        """
        if self.step >= total_steps:
            self.stopped = STEPS
        elif self.epochs_without_better >= patience:
            self.stopped = PATIENCE
        elif max_minutes is not None and seconds * (1 + 1 / self.epochs) > 60 * max_minutes:
            self.stopped = TIME

    def last_epoch(self, epoch: int, recall: float | None) -> None:
        """Note the validation recall of an epoch (from 0) that is kept whatever it is."""
        self.epochs, self.best_epoch, self.best_recall, self.epochs_without_better = epoch + 1, epoch, recall, 0

    def epoch_done(self, epoch: int, recall: float | None) -> bool:
        """Note the validation recall of an epoch (from 0); whether it is the best so far."""
        self.epochs = epoch + 1
        if recall is None:
            return False
        if self.best_recall is None or recall > self.best_recall:
            self.best_recall, self.best_epoch, self.epochs_without_better = recall, epoch, 0
            return True
        self.epochs_without_better += 1
        return False
