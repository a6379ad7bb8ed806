"""What the schedule promises: hoisted, grouped, merged; nothing computed twice; nothing read that is not kept."""

import pytest

from carousel.cells import CELLS
from carousel.graph import Cell, Output, tanh
from carousel.graph.differentiate import plan
from carousel.graph.kinds import Constant, Dense, Hoisting, TotalKind, TotalOuter
from carousel.graph.node import reachable
from carousel.graph.program import Level
from carousel.graph.schedule import Section, schedule
from cases import CASES, every_case


def both(cell):
    plan_ = plan(cell.graph)
    return plan_, schedule(plan_.forward), schedule(plan_.backward)


def groups(cut, section, kind=Dense):
    """The groups of products in each stage of a section."""
    found = [[g.nodes for g in stage.groups if isinstance(g.nodes[0].kind, kind)] for stage in cut.sections[section]]
    return [stage for stage in found if stage]


def sizes(stages):
    return [sorted(map(len, stage)) for stage in stages]


def names(nodes):
    return {node.args[0].name for node in nodes}


def test_lstm_hoists_its_four_input_products_as_one():
    _, forward, _ = both(CELLS["lstm"]())
    [[hoisted]] = groups(forward, Section.BEFORE)
    assert names(hoisted) == {"W_i", "W_f", "W_g", "W_o"}
    assert {node.args[1].name for node in hoisted} == {"x"}


def test_lstm_starts_a_step_with_one_product_of_four():
    _, forward, _ = both(CELLS["lstm"]())
    [[recurrent]] = groups(forward, Section.LOOP)
    assert names(recurrent) == {"U_i", "U_f", "U_g", "U_o"}
    assert groups(forward, Section.AFTER) == []


def test_lstm_goes_back_with_one_merged_transposed_product():
    _, _, backward = both(CELLS["lstm"]())
    [[[merged]]] = groups(backward, Section.LOOP)
    assert merged.kind == Dense(transposed=True)
    assert {arg.name for arg in merged.args[::2]} == {"U_i", "U_f", "U_g", "U_o"}


def test_lstm_gets_the_gradients_of_inputs_and_weights_in_products_after_the_loop():
    _, _, backward = both(CELLS["lstm"]())
    [[[merged]]] = groups(backward, Section.AFTER)
    assert {arg.name for arg in merged.args[::2]} == {"W_i", "W_f", "W_g", "W_o"}
    [outer] = groups(backward, Section.AFTER, TotalOuter)
    assert sorted(map(len, outer)) == [4, 4]
    assert {nodes[0].args[1].name for nodes in outer} == {"x", "h"}
    assert groups(backward, Section.LOOP, TotalKind) == []


def test_lstm_adds_its_biases_before_the_loop():
    _, forward, _ = both(CELLS["lstm"]())
    inside = [node for stage in forward.sections[Section.LOOP] for node in stage.region]
    assert not {arg.name for node in inside for arg in node.args} & {"b_i", "b_f", "b_g", "b_o"}


STAGES = [("gru", [[2], [1]]), ("gru_reset_after", [[3]]), ("elman", [[1]]), ("lstm", [[4]])]


@pytest.mark.parametrize(("name", "stages"), STAGES)
def test_products_of_a_step_stand_in_as_few_stages_as_can_be(name, stages):
    _, forward, _ = both(CELLS[name]())
    assert sizes(groups(forward, Section.LOOP)) == stages


def test_jordan_feeds_back_through_two_products_and_hoists_the_input():
    _, forward, _ = both(CELLS["jordan"]())
    assert [[names(nodes) for nodes in stage] for stage in groups(forward, Section.LOOP)] == [[{"U_h"}], [{"W_y"}]]
    assert [[names(nodes) for nodes in stage] for stage in groups(forward, Section.BEFORE)] == [[{"W_h"}]]


def test_a_product_that_only_the_output_needs_waits_until_after_the_loop():
    class Readout(Cell):
        def step(self, x, h):
            h = tanh(self.affine("h", x, h))
            return Output(self.dense("V", h)), h

    _, forward, _ = both(Readout())
    assert [[names(nodes) for nodes in stage] for stage in groups(forward, Section.AFTER)] == [[{"V"}]]
    assert sizes(groups(forward, Section.LOOP)) == [[1]]


def in_order(cut):
    """Every node of a schedule with the section and the stage it is in, in the order in which it is computed."""
    for section in Section:
        for number, stage in enumerate(cut.sections[section]):
            for group in stage.groups:
                for node in group.nodes:
                    yield section, number, True, node
            for node in stage.region:
                yield section, number, False, node


@every_case
@pytest.mark.parametrize("which", ["forward", "backward"])
def test_every_node_is_computed_once_and_after_what_it_reads(case, which):
    plan_ = plan(case.cell.graph)
    cut = schedule(getattr(plan_, which))
    done = set(cut.program.known)
    for _, _, _, node in in_order(cut):
        assert node not in done
        assert all(arg in done for arg in node.args), f"{node} reads what is not there yet"
        done.add(node)
    assert set(cut.program.results) <= done


@every_case
@pytest.mark.parametrize("which", ["forward", "backward"])
def test_products_of_a_stage_can_start_together(case, which):
    cut = schedule(getattr(plan(case.cell.graph), which))
    at = {node: (section, number) for section, number, _, node in in_order(cut)}
    for section, number, product, node in in_order(cut):
        assert product == (node.kind.hoisting is Hoisting.PRODUCT)
        if product:
            assert all(at.get(arg) != (section, number) for arg in node.args)


@every_case
@pytest.mark.parametrize("which", ["forward", "backward"])
def test_what_runs_for_all_steps_at_once_reads_only_what_is_there_for_all_steps(case, which):
    cut = schedule(getattr(plan(case.cell.graph), which))
    given = {node for node, level in cut.program.given.items() if level in (Level.ONCE, Level.STEPS)}
    section = {node: where for where, _, _, node in in_order(cut)}
    for where, _, _, node in in_order(cut):
        if where is Section.BEFORE:
            assert all(arg in given or section[arg] in (Section.ONCE, Section.BEFORE) for arg in node.args)
        if where is Section.AFTER:
            allowed = (Section.ONCE, Section.BEFORE, Section.AFTER)
            assert all(arg in given or arg in cut.kept or section[arg] in allowed for arg in node.args)


@every_case
def test_backward_reads_only_inputs_states_output_parameters_and_what_was_saved(case):
    plan_, forward, backward = both(case.cell)
    step = case.cell.graph
    allowed = {*step.inputs.values(), *step.states.values(), *step.new_states.values(), step.output}
    allowed |= {p.node for p in step.parameters.values()} | set(plan_.saved) | {plan_.gradients.of_output}
    allowed |= {*step.context.values(), *step.ambient.values()}
    assert set(backward.program.given) <= allowed
    emitted = set(forward.program.emitted)
    assert len(emitted) == 1 + len(plan_.saved)


@every_case
def test_backward_computes_no_forward_product_again(case):
    plan_, _, backward = both(case.cell)
    forward = set(case.cell.graph.nodes)
    again = {(where, n) for where, _, _, n in in_order(backward) if n in forward and not isinstance(n.kind, Constant)}
    moving = {n for where, n in again if where is not Section.ONCE}
    assert not [n for n in moving if n.kind.hoisting is Hoisting.PRODUCT]
    needed = reachable(plan_.recomputed, stop=backward.program.known)
    assert moving <= set(needed)


@every_case
def test_what_is_saved_and_what_is_computed_again_do_not_overlap(case):
    plan_ = plan(case.cell.graph)
    assert not set(plan_.saved) & set(plan_.recomputed)
    assert len(set(plan_.saved)) == len(plan_.saved)


def test_the_cases_are_not_empty():
    assert len(CASES) > len(CELLS)
