"""What bench/results shows to meet its goal stays so."""

from tests.gpu import goals


def test_what_is_met_stays_met():
    missed = {(one.model, one.row) for one in goals.found() if not one.met}
    known = {(model, row) for model, rows in goals.MISSED.items() for row in rows}
    assert missed - known == set(), "missed, though met before"
    assert known - missed == set(), "met by now"


def test_every_goal_has_rows():
    shown = {(one.goal, one.model) for one in goals.found()}
    assert shown == {(goal, model) for goal in goals.GOALS for model in goal.models}


def test_the_command_prints_every_value(capsys):
    goals.main()
    text, values = capsys.readouterr().out, list(goals.found())
    assert text.count(" met") - len(goals.GOALS) == sum(one.met for one in values)
    assert text.count(" missed") == sum(not one.met for one in values)
