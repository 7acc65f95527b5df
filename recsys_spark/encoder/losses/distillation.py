"""Distillation: learn another model's opinion of all candidates, beside the one that was right."""

from __future__ import annotations

from torch import Tensor

from recsys_spark.encoder.losses.comparison import Comparison
from recsys_spark.encoder.losses.softmax import softmax
from recsys_spark.errors import TrainingError


def distillation(comparison: Comparison, teacher_share: float) -> Tensor:
    """Cross-entropy with a teacher's softmax over the candidates, mixed with that of the target, [B].

    ``loss_b = (1 - w) softmax_b - w sum_c p_bc log( exp(s_bc / tau) / sum_k exp(s_bk / tau) )``, ``p = softmax(teacher)``, w the
    teacher's share (Hinton et al. 2015, arXiv 1503.02531, without its factor T^2: tau is part of the model here). Up to the
    teacher's entropy the second term is KL(p, student), least where the student scores as the teacher does. Excluded
    candidates are out of both softmaxes.

    Raises:
        TrainingError: the comparison has no teacher.
    """
    if comparison.teacher is None:
        raise TrainingError("loss 'distillation'", "no teacher's scores", "comparison.teacher")
    excluded_BC = ~(comparison.is_target() | comparison.is_negative())
    log_student_BC = comparison.logits().masked_fill(excluded_BC, float("-inf")).log_softmax(1)
    chance_BC = comparison.teacher.masked_fill(excluded_BC, float("-inf")).softmax(1)
    soft_B = -(chance_BC * log_student_BC.masked_fill(excluded_BC, 0.0)).sum(1)
    return (1 - teacher_share) * softmax(comparison) + teacher_share * soft_B
