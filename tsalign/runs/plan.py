"""What a run would make and need, as its own stage functions tell it while the recipe is run dry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import is_remote
from tsalign.config import Placement, ResourceConfig
from tsalign.runs.artifacts import Dataset, Folder, Model

Amount = float | None  # None: not known beforehand
ONE_TASK = Placement()


def times(*amounts: Amount) -> Amount:
    """The product; unknown where a factor is."""
    product = 1.0
    for amount in amounts:
        if amount is None:
            return None
        product *= amount
    return product


def plus(*amounts: Amount) -> Amount:
    """The sum; unknown where a term is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def at_most(*amounts: Amount) -> Amount:
    """The smallest of the known amounts; unknown where none is."""
    return min((amount for amount in amounts if amount is not None), default=None)


@dataclass(frozen=True)
class ExpectedDataset(Dataset):
    """Rows that a stage would make.

    Attributes:
        rows: the number of rows, at most.
        completions: in each row, on average.
        temperatures: at how many the completions of a row are sampled, equally many at each.
        sets: into how many sets, or tasks, the rows fall.
    """

    rows: Amount = None
    completions: Amount = 0.0
    temperatures: int = 1
    sets: Amount = None

    def shards(self) -> list[UPath]:
        """None yet."""
        return []

    def limited(self, rows: Amount) -> Self:
        """The same with no more than `rows` rows."""
        return replace(self, rows=at_most(self.rows, rows))


@dataclass(frozen=True)
class ExpectedModel(Model):
    """A model that a stage would make, or that cannot be looked at: nothing about it can be checked."""


@dataclass(frozen=True)
class Need:
    """What one model or service would do in a stage, and where.

    Attributes:
        stage: its name within the iteration.
        iteration: from 1; 0 for a stage outside the iterations.
        who: the model that works, or the service that is asked, by its role; empty where none is.
        work: unit, such as `completions` -> amount at most.
        measures: whether it measures what the run came to.
        note: what else is worth knowing.
        beside: whether stages that follow need not wait for it.
    """

    stage: str
    iteration: int
    who: str
    placement: Placement
    work: Mapping[str, Amount]
    measures: bool
    note: str
    beside: bool = False
    pipeline: int = 0


@dataclass(frozen=True)
class Role:
    """A model that the recipe uses, and how it would run."""

    who: str
    model: str
    runs_as: str


@dataclass(frozen=True)
class Service:
    """What a run would deploy beside its stages; those whose `who` it is ask it."""

    who: str
    replicas: int
    cpus: float
    gpus: float
    node: str | dict[str, str] | None = None


@dataclass(frozen=True)
class Plan:
    """What a run would do, in the recipe's order.

    Attributes:
        uncounted: location of rows that the plan cannot count -> why.
        problems: what is wrong, a line each.
        ready: whether the run is about to start: all that it reads on this machine then has to be there.
    """

    needs: list[Need] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    uncounted: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    ready: bool = False
    _checked: set[object] = field(default_factory=set)

    def leave_uncounted(self, location: str) -> None:
        """Note a location whose rows stay unknown."""
        self.uncounted[location] = "not on this machine" if is_remote(location) else "nothing there"

    @contextmanager
    def checking(self, where: str) -> Iterator[None]:
        """Note what the block finds wrong, so that what follows is checked as well.

        Args:
            where: the key, or the file, that is checked; put before a message that does not begin with it.
        """
        try:
            yield
        except TsalignError as error:
            if not any(known.endswith(str(error)) for known in self.problems):
                self.problems.append(str(error) if str(error).startswith(where) else f"{where}: {error}")

    def first(self, *what: object) -> bool:
        """Whether this is asked for the first time: later iterations use what the first one does."""
        new = what not in self._checked
        self._checked.add(what)
        return new

    def approve(self) -> None:
        """Nothing, where nothing is wrong.

        Raises:
            TsalignError: all problems, in one message.
        """
        if self.problems:
            raise TsalignError("\n  ".join(self.problems))


@dataclass(frozen=True)
class PlannedStage:
    """What the `expects` function of a stage function is given in place of a `Stage`."""

    name: str
    iteration: int
    measures: bool
    resources: ResourceConfig
    plan: Plan
    beside: bool = False
    pipeline: int = 0

    def needs(self, who: str, placement: Placement, work: Mapping[str, Amount], note: str = "") -> None:
        """Note who would do how much of what, and where."""
        self.plan.needs.append(
            Need(self.name, self.iteration, who, placement, work, self.measures, note, self.beside, self.pipeline)
        )

    def dataset(self, rows: Amount, completions: Amount = 0.0, sets: Amount = None) -> ExpectedDataset:
        """The rows that the stage would make."""
        return ExpectedDataset(self.name, self.name, None, rows, completions, sets=sets)

    def derived(self, data: Dataset, **changes: Any) -> ExpectedDataset:
        """The rows that the stage would make of those of `data`: the same but for some attributes."""
        return replace(expected(data), path=self.name, fingerprint=self.name, **changes)

    def model(self, role: str) -> Model:
        """The model that the stage would make."""
        return ExpectedModel(self.name, self.name, role=role)

    def folder(self) -> Folder:
        """The folder that the stage would make."""
        return Folder(self.name, self.name)


def expected(dataset: Dataset) -> ExpectedDataset:
    """A dataset of a plan as what it is: all that stages of a plan hand to each other are expected ones."""
    if not isinstance(dataset, ExpectedDataset):
        raise TypeError(f"{dataset.path}: made by a run, not by a plan")
    return dataset
