"""Which rows run: fairness between projects, between requests and between sizes, counted in steps."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import pytest

from inference_service.denoising.row_queue import RowQueue

BATCH = 4


@dataclass(eq=False)
class FakeRow:
    """Needs so many steps; a step of any row is one unit of work unless said otherwise."""

    steps: int
    group: Hashable = "small"
    step_work: float = 1.0
    done: int = 0

    @property
    def remaining_work(self) -> float:
        return (self.steps - self.done) * self.step_work


@dataclass
class Machine:
    """A queue and a fake clock that ticks once a step. Every step takes as long as every other."""

    queue: RowQueue[FakeRow] = field(default_factory=RowQueue)
    batch: int = BATCH
    now: int = 0
    ended: dict[int, int] = field(default_factory=dict)

    def add(self, project: str, *rows: FakeRow) -> list[FakeRow]:
        self.queue.add(rows, project)
        return list(rows)

    def step(self) -> list[FakeRow]:
        rows = self.queue.choose(lambda group: self.batch, lambda chosen, row: True)
        self.now += 1
        for row in rows:
            row.done += 1
            if row.done == row.steps:
                self.ended[id(row)] = self.now
        self.queue.served(sum(row.step_work for row in rows))
        self.queue.remove([row for row in rows if row.done == row.steps])
        return rows

    def run(self) -> None:
        while len(self.queue):
            self.step()

    def end_of(self, rows: list[FakeRow]) -> int:
        """When the last of them was finished."""
        return max(self.ended[id(row)] for row in rows)


def rows(count: int, steps: int, group: Hashable = "small", step_work: float = 1.0) -> list[FakeRow]:
    return [FakeRow(steps, group, step_work) for _ in range(count)]


def test_an_empty_queue_chooses_nothing() -> None:
    assert Machine().step() == []


def test_a_request_joins_at_the_next_step_and_leaves_at_its_last() -> None:
    machine = Machine()
    [first] = machine.add("a", *rows(1, steps=3))
    assert machine.step() == [first]
    [second] = machine.add("b", *rows(1, steps=1))
    assert set(machine.step()) == {first, second}
    assert machine.step() == [first]
    assert machine.step() == []


def test_equal_requests_of_one_project_are_served_in_their_order() -> None:
    machine = Machine(batch=2)
    requests = [machine.add("a", *rows(2, steps=5)) for _ in range(4)]
    machine.run()
    assert [machine.end_of(request) for request in requests] == [5, 10, 15, 20]


@pytest.mark.parametrize("project", ["same", "other"])
def test_no_request_waits_behind_a_long_one(project: str) -> None:
    machine = Machine()
    long = machine.add("same", *rows(64, steps=50))
    for _ in range(10):
        machine.step()
    short = machine.add(project, *rows(1, steps=5))
    machine.run()
    assert machine.end_of(short) == 15
    assert machine.end_of(long) == pytest.approx(64 * 50 / BATCH + 2, abs=50)


def test_a_project_that_sends_much_delays_only_itself() -> None:
    machine = Machine()
    for _ in range(100):
        machine.add("much", *rows(4, steps=20))
    for _ in range(40):
        machine.step()
    few = machine.add("few", *rows(1, steps=20))
    machine.run()
    # With half of the machine's work to itself, one image of 20 steps is never made to wait.
    assert machine.end_of(few) == 60


def test_two_projects_with_equal_loads_advance_together() -> None:
    machine = Machine()
    requests = {project: [machine.add(project, *rows(1, steps=10)) for _ in range(20)] for project in ("a", "b")}
    machine.run()
    ends = {project: [machine.end_of(request) for request in own] for project, own in requests.items()}
    for ours, theirs in zip(ends["a"], ends["b"], strict=True):
        assert abs(ours - theirs) <= 10


def test_a_stream_of_short_requests_does_not_starve_a_long_one() -> None:
    machine = Machine(batch=1)
    long = machine.add("patient", *rows(1, steps=100))
    count = 0
    while id(long[0]) not in machine.ended:
        if count == 0 or machine.now % 2 == 0:
            # Twice of what the machine can do.
            machine.add("busy", *rows(4, steps=1))
            count += 1
        machine.step()
        assert machine.now < 1000
    # Half of the machine belongs to each project; tags are given when rows come, so it is not quite half.
    assert machine.end_of(long) == pytest.approx(200, rel=0.2)


def test_sizes_take_turns_by_the_work_they_ask_for() -> None:
    machine = Machine()
    large = machine.add("a", *rows(8, steps=30, group="large", step_work=4.0))
    machine.step()
    small = machine.add("b", *rows(2, steps=10))
    machine.run()
    assert machine.end_of(small) == 11
    assert machine.end_of(large) == 8 * 30 / BATCH + 10


def test_only_rows_of_one_group_share_a_step() -> None:
    machine = Machine()
    machine.add("a", *rows(2, steps=3, group="large"))
    machine.add("b", *rows(2, steps=3, group="small"))
    while len(machine.queue):
        assert len({row.group for row in machine.step()}) == 1


def test_rows_that_do_not_fit_are_passed_over_for_a_step() -> None:
    machine = Machine()
    first, second, third = machine.add("a", *rows(3, steps=1))
    chosen = machine.queue.choose(lambda group: BATCH, lambda chosen, row: row is not second)
    assert chosen == [first, third]
    machine.queue.remove(chosen)
    assert machine.queue.choose(lambda group: BATCH, lambda chosen, row: False) == [second]


def test_idle_time_earns_nothing() -> None:
    machine = Machine()
    machine.add("early", *rows(1, steps=1))
    machine.run()
    for _ in range(8):
        machine.add("busy", *rows(4, steps=10))
    for _ in range(20):
        machine.step()
    own = [machine.add("early", *rows(4, steps=10)) for _ in range(2)]
    machine.run()
    # Two projects share from now on: each of its requests takes twice its 10 steps.
    assert machine.end_of(own[0]) == pytest.approx(20 + 21, abs=11)
