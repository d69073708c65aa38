"""What a search chooses from in tests, and an objective that takes no training."""

from mammo.base.settings import Space
from mammo.tuning.cards import Report
from mammo.tuning.search import Choice

SPACE = Space(head_width=[8, 16, 32], dropout=(0.0, 0.5), learning_rate=(1e-4, 1e-2))


def quality(choice: Choice) -> float:
    return float(
        choice["dropout"] - abs(choice["learning_rate"] - 0.002) + choice["head_width"] / 100
    )


def smooth(number: int, choice: Choice, report: Report) -> float:
    report({"epoch": 1, "validation_auroc": quality(choice) - 1})
    report({"epoch": 2, "validation_auroc": quality(choice)})
    return quality(choice)
