"""Counts of right, invented and missed things, and the measures made of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Score:
    """`right` were found, `invented` are wrong, `missed` were not found."""

    right: int = 0
    invented: int = 0
    missed: int = 0

    def add(self, other: Score) -> None:
        self.right += other.right
        self.invented += other.invented
        self.missed += other.missed

    @property
    def precision(self) -> float | None:
        found = self.right + self.invented
        return self.right / found if found else None

    @property
    def recall(self) -> float | None:
        due = self.right + self.missed
        return self.right / due if due else None

    @property
    def f1(self) -> float | None:
        whole = 2 * self.right + self.invented + self.missed
        return 2 * self.right / whole if whole else None


# What is measured, in the order of the table.
MEASURES = (
    "operations",
    "path parameters",
    "query parameters",
    "header parameters",
    "required query",
    "statuses",
    "request properties",
    "response properties",
    "types",
    "parameter types",
    "required",
    "nullable",
    "enum",
    "format",
    "security",
)


@dataclass
class Report:
    scores: dict[str, Score] = field(default_factory=lambda: {m: Score() for m in MEASURES})
    # One line each, for a person: `missed operation GET /users/{*}`.
    faults: list[str] = field(default_factory=list)

    def score(self, measure: str, right: set, truth: set, found: set, subject: str = "") -> None:
        """Counts two sets against each other, and notes what differs."""
        score = self.scores[measure]
        score.right += len(right)
        score.missed += len(truth - right)
        score.invented += len(found - right)
        for thing in sorted(truth - right, key=str):
            self.faults.append(f"missed {measure}: {subject} {render(thing)}".replace("  ", " "))
        for thing in sorted(found - right, key=str):
            self.faults.append(f"invented {measure}: {subject} {render(thing)}".replace("  ", " "))


def render(thing) -> str:
    return " ".join(str(t) for t in thing) if isinstance(thing, tuple) else str(thing)


def show(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def table(reports: dict[str, Report], *, is_macro: bool = False) -> str:
    """Micro (sums) over all reports, and macro (mean of the documents) beside it where asked."""
    lines = []
    head = f"{'measure':<20}{'precision':>10}{'recall':>8}{'F1':>8}{'right':>8}{'invented':>9}{'missed':>8}"
    lines.append(head + (f"{'macro P':>9}{'macro R':>9}" if is_macro else ""))
    for measure in MEASURES:
        total = Score()
        for report in reports.values():
            total.add(report.scores[measure])
        line = f"{measure:<20}{show(total.precision):>10}{show(total.recall):>8}{show(total.f1):>8}"
        line += f"{total.right:>8}{total.invented:>9}{total.missed:>8}"
        if is_macro:
            line += f"{show(mean(r.scores[measure].precision for r in reports.values())):>9}"
            line += f"{show(mean(r.scores[measure].recall for r in reports.values())):>9}"
        lines.append(line)
    return "\n".join(lines)


def mean(values) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def unmet(report: Report, thresholds: dict[str, float]) -> list[str]:
    """Thresholds by `MEASURE.precision|recall|f1`; what was not measured is not met."""
    out = []
    for name, least in thresholds.items():
        measure, _, quantity = name.rpartition(".")
        if measure not in report.scores or quantity not in ("precision", "recall", "f1"):
            raise ValueError(f"unknown threshold {name!r}; measures: {', '.join(MEASURES)}; then .precision, .recall or .f1")
        value = getattr(report.scores[measure], quantity)
        if value is None or value < least:
            out.append(f"{name} is {show(value)}, below {least}")
    return out
