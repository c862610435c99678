"""What follows from each event of a benchmark: whole chains, from the request to the last report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.device import cells_made
from tests.device.cells_made import configuration
from tests.facts_made import LITERT, TFLITE
from tflotilla.device import campaign
from tflotilla.device.campaign import Campaign, Cancelled, Ended, Entry, Measure, Note, Plan, Planned, Restarted, Tell
from tflotilla.shared.contract.agent_config import InferenceConfig
from tflotilla.shared.contract.benchmark import BenchmarkRequest, Configuration, Method

SERVING = InferenceConfig(runtime="tflite-runtime", num_threads=2)
REQUEST = BenchmarkRequest(request="r", configurations=(configuration(1), configuration(2), configuration(3)))


def cells(request: BenchmarkRequest, *, processors: tuple[int, ...] = (0, 1, 2, 3)) -> tuple[Planned, ...]:
    return campaign.plan_cells(request, serving=SERVING, offers=(TFLITE, LITERT), processors=processors)


def plan(request: BenchmarkRequest = REQUEST) -> Plan:
    return Plan(request=request, identity=cells_made.identity(), cells=cells(request))


def told(actions: tuple[campaign.Action, ...]) -> list[str]:
    """Say each action in a few words."""
    words = []
    for action in actions:
        if isinstance(action, Tell):
            report = action.report
            error = report.cell.error if report.cell is not None else None
            words.append(f"tell {report.position}/{report.total} {error.kind if error else report.error or 'figures'}")
        elif isinstance(action, Measure):
            words.append(f"measure {action.planned.configuration.batch}")
        else:
            entry = action.entry
            words.append(f"note {'a cell' if entry.cell else entry.cancelled or f'began {entry.began}'}")
    return words


def measured(state: Campaign) -> Ended:
    return Ended(cell=cells_made.measured(state.plan.cells[len(state.done)].configuration))


def test_cells_are_measured_in_the_order_of_the_request_and_each_is_noted_before_it_is_told() -> None:
    state, actions = campaign.begin(plan(), "b1")
    chain = told(actions)
    while not state.over:
        state, actions = campaign.step(state, measured(state))
        chain += told(actions)

    assert chain == [
        "note began 0",
        "measure 1",
        "note a cell",
        "tell 1/3 figures",
        "note began 1",
        "measure 2",
        "note a cell",
        "tell 2/3 figures",
        "note began 2",
        "measure 3",
        "note a cell",
        "tell 3/3 figures",
    ]


def test_a_refused_cell_is_answered_without_being_tried() -> None:
    request = replace(REQUEST, configurations=(configuration(1, threads=64), configuration(2)))
    _, actions = campaign.begin(plan(request), "b1")

    assert told(actions) == ["note a cell", "tell 1/2 refused", "note began 1", "measure 2"]


def test_a_restart_costs_the_cell_that_was_measured_and_no_other() -> None:
    state, _ = campaign.begin(plan(), "b1")
    state, _ = campaign.step(state, measured(state))
    state, actions = campaign.step(state, Restarted(boot="b1"))

    assert told(actions) == ["note a cell", "tell 2/3 interrupted", "note began 2", "measure 3"]
    error = state.done[1].error
    assert error is not None
    assert error.message == "the board's agent was restarted while this was measured"


def test_a_restart_of_the_board_is_told_apart_from_one_of_its_agent() -> None:
    state, _ = campaign.begin(plan(), "b1")
    state, actions = campaign.step(state, Restarted(boot="b2"))

    error = state.done[0].error
    assert error is not None
    assert error.message == "the board was restarted while this was measured"
    assert [action.entry.boot for action in actions if isinstance(action, Note)] == ["", "b2"]


def test_a_board_that_dies_of_every_cell_comes_to_an_end() -> None:
    state, _ = campaign.begin(plan(), "b0")
    for boot in ("b1", "b2", "b3"):
        state, _ = campaign.step(state, Restarted(boot=boot))

    assert state.over
    assert [cell.error.kind for cell in state.done if cell.error] == ["interrupted"] * 3


def test_a_cancelled_benchmark_says_so_and_is_over() -> None:
    state, _ = campaign.begin(plan(), "b1")
    state, actions = campaign.step(state, Cancelled(reason="enough"))

    assert state.over
    assert told(actions) == ["note a cell", "tell 1/3 interrupted", "note enough", "tell 1/3 enough"]


def test_a_benchmark_cancelled_in_its_last_cell_is_over_with_that_cell() -> None:
    state, _ = campaign.begin(plan(replace(REQUEST, configurations=(configuration(1),))), "b1")
    state, actions = campaign.step(state, Cancelled(reason="enough"))

    assert state.over
    assert told(actions) == ["note a cell", "tell 1/1 interrupted"]


@pytest.mark.parametrize("event", [Cancelled(reason="enough"), Restarted(boot="b2")])
def test_nothing_happens_to_a_benchmark_that_is_over(event: campaign.Event) -> None:
    state, _ = campaign.step(campaign.begin(plan(), "b1")[0], Cancelled(reason="enough"))

    assert campaign.step(state, event) == (state, ())
    assert campaign.step(state, Ended(cell=cells_made.measured(configuration()))) == (state, ())


def chains() -> list[tuple[campaign.Event | None, ...]]:
    """Return every chain of three events."""
    events: list[campaign.Event | None] = [None, Restarted(boot="b1"), Restarted(boot="b2"), Cancelled(reason="enough")]
    return [(one, two, three) for one in events for two in events for three in events]


@pytest.mark.parametrize("chain", chains())
def test_the_journal_tells_the_same_story_whatever_happened(chain: tuple[campaign.Event | None, ...]) -> None:
    """None is a cell that ended with figures. What was told is what the journal tells, at every moment."""
    state, actions = campaign.begin(plan(), "b1")
    entries: list[Entry] = []
    reports = []
    for event in (*chain, None):
        entries += [action.entry for action in actions if isinstance(action, Note)]
        reports += [action.report for action in actions if isinstance(action, Tell)]

        assert campaign.replay(state.plan, entries) == replace(state, boot=campaign.replay(state.plan, entries).boot)
        assert list(campaign.story(state)) == reports
        assert state.over == (bool(reports) and reports[-1].last)
        if state.over:
            break
        state, actions = campaign.step(state, event or measured(state))


def test_a_journal_that_makes_no_sense_ends_where_it_stops_making_sense() -> None:
    begun = Entry(began=0, boot="b1")

    assert campaign.replay(plan(), [begun, Entry(began=7)]) == campaign.replay(plan(), [begun])


def test_without_configurations_the_one_that_serves_is_measured() -> None:
    (cell,) = cells(BenchmarkRequest(request="r"))

    assert cell == Planned(configuration=Configuration(inference=SERVING), runtime=TFLITE)


def test_auto_is_the_runtime_that_would_serve() -> None:
    (cell,) = cells(replace(REQUEST, configurations=(Configuration(inference=InferenceConfig(num_threads=3)),)))

    assert cell.configuration.inference == InferenceConfig(runtime="tflite-runtime", num_threads=3)
    assert cell.runtime == TFLITE


@pytest.mark.parametrize(
    ("inference", "processors", "refusal"),
    [
        (InferenceConfig(num_threads=5), (0, 1, 2, 3), "5 threads, and this board has 4 cores"),
        (InferenceConfig(num_threads=2), (3,), "2 threads, and this board has 1 core"),
        (InferenceConfig(affinity=(4,)), (0, 1), "processor 4 can't be used on this board; it has 0, 1"),
        (
            InferenceConfig(affinity=(0,), num_threads=2),
            (0, 1),
            "2 threads would share 1 of this board's processors",
        ),
        (InferenceConfig(affinity=(0, 1), num_threads=2), (0, 1), None),
    ],
)
def test_what_a_board_can_not_do_is_refused_with_the_figures(
    inference: InferenceConfig, processors: tuple[int, ...], refusal: str | None
) -> None:
    request = replace(REQUEST, configurations=(Configuration(inference=inference),))
    (cell,) = cells(request, processors=processors)

    assert refusal == cell.refusal


def test_a_runtime_that_is_not_installed_is_refused_by_name() -> None:
    (cell,) = campaign.plan_cells(
        replace(REQUEST, configurations=(configuration(),)), serving=SERVING, offers=(TFLITE,), processors=(0,)
    )

    assert (cell.runtime, cell.refusal) == (None, "ai-edge-litert is not installed on this board")


def test_a_board_without_a_runtime_says_so() -> None:
    (cell,) = campaign.plan_cells(BenchmarkRequest(request="r"), serving=InferenceConfig(), offers=(), processors=(0,))

    assert cell.refusal == "no runtime is installed on this board; bootstrap it again"


def test_a_refusal_is_the_last_word() -> None:
    assert campaign.refuse(REQUEST, "no bundle").last
    assert campaign.refuse_nonsense("r", "what?").last
    assert campaign.refuse(REQUEST, "no bundle").method == Method()
