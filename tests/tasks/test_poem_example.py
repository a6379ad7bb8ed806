"""The small poet that ships as an example."""

import re
from pathlib import Path

import pytest

from carousel.cli.main import main
from carousel.tasks import Poet
from carousel.tasks.poem import FORMS, keeps_form

FOLDER = Path(__file__).parents[2] / "examples" / "poet"


@pytest.fixture(scope="module")
def poet():
    return Poet.load(FOLDER, device="cpu")


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 3_000_000


@pytest.mark.parametrize("form", FORMS)
def test_it_writes_every_form(poet, form):
    poem = poet.write("春曉", form=form, seed=1)
    assert keeps_form(poem.text, FORMS[form].lengths)
    assert len(set(poem.text)) > len(poem.text) / 2


def test_it_knows_tunes(poet):
    poem = poet.write(tune="浣溪沙", seed=1)
    assert keeps_form(poem.text, [7] * 6)
    assert poet.inputs_.tunes["浣溪沙"].scheme == "aaa-aa"  # what every handbook says
    assert len(poet.inputs_.tunes) > 500


def test_it_has_learned_what_goes_together(poet):
    likely, odd = poet.score_lines(["白日依山盡，黃河入海流。", "日白盡山依，河黃流海入。"])
    assert likely.per_token > odd.per_token + 0.5


def test_the_commands_of_its_page_work(capsys):
    commands = re.findall(r"^\$ carousel (generate examples/poet .*)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        assert main([str(FOLDER) if word == "examples/poet" else word for word in command.split()]) == 0
        assert capsys.readouterr().out
