"""The scripts that complete the command, each run by its own shell where that is installed."""

import shutil
import subprocess
import sys

import pytest

from carousel.cells import CELLS
from carousel.cli.completion import places
from carousel.cli.main import VERBS
from carousel.tasks import TASKS, Classifier

# What follows the script: the words of a command line, the last of them to be completed; a line for each completion.
ASK = {
    "bash": """
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_carousel
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """
compadd() {{ shift; print -rl -- "$@"; }}
_files() {{ if [ "$1" = "-/" ]; then print -rl -- *(N/); else print -rl -- *(N); fi; }}
words=({words}) CURRENT={count}
_carousel
""",
    "fish": """
complete -C "{line}" | string split -f 1 \\t
""",
}


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def complete(request, tmp_path_factory):
    """Complete the last of some words, in a folder with a directory `runs` and a file `train.tsv`."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    made = subprocess.run([sys.executable, "-m", "carousel", "completion", shell], capture_output=True, text=True, check=True)
    assert made.stderr == ""
    folder = tmp_path_factory.mktemp(shell)
    (folder / "runs").mkdir()
    (folder / "train.tsv").touch()
    script = made.stdout if shell != "zsh" else "compdef() { :; }\n" + made.stdout

    def ask(*words):
        quoted = ["carousel", *words]
        asked = ASK[shell].format(words=" ".join(f"'{word}'" for word in quoted), count=len(quoted), line=" ".join(quoted))
        empty = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        file = folder.parent / f"{shell}.script"  # as an argument it would be too long
        file.write_text(script + asked)
        done = subprocess.run([shell, *empty, file], capture_output=True, text=True, cwd=folder, check=False)
        assert not done.stderr, done.stderr
        found = [line.rstrip("/") for line in done.stdout.split("\n") if line]
        return [line for line in found if line.startswith(words[-1])]  # zsh's own compadd chooses, and this one does not

    return ask


def test_verbs_and_tasks(complete):
    assert set(VERBS) <= set(complete(""))
    assert complete("pre") == ["predict"]
    assert complete("fit", "cl") == ["classify"]
    assert set(complete("init", "")) == set(TASKS)
    assert sorted(complete("completion", "")) == ["bash", "fish", "zsh"]


def test_options_of_a_task_and_of_a_verb(complete):
    found = complete("fit", "classify", "--")
    assert {f"--{option.name}" for option in Classifier.option_list()} <= set(found)
    assert {"--train", "--valid", "--out", "--overwrite", "--resume", "--config", "--code", "--help"} <= set(found)
    assert set(complete("crossvalidate", "classify", "--fold")) == {"--folds", "--fold_seed"}
    assert complete("evaluate", "runs", "--js") == ["--json"]
    assert complete("fit", "classify", "--train", "train.tsv", "--hidden") == ["--hidden_size"]


def test_values_of_options(complete):
    assert set(complete("fit", "classify", "--cell", "")) == set(CELLS)
    assert complete("fit", "classify", "--summary", "att") == ["attention"]
    assert sorted(complete("fit", "classify", "--bidirectional", "")) == ["false", "true"]
    assert complete("cells", "conv") == ["conv_lstm"]
    assert complete("cells", "lstm", "--emit", "lat") == ["latex"]


def test_files_and_directories(complete):
    assert complete("fit", "classify", "--out", "ru") == ["runs"]
    assert "train.tsv" not in complete("fit", "classify", "--out", "")
    assert complete("fit", "classify", "--train", "tr") == ["train.tsv"]
    assert complete("evaluate", "ru") == ["runs"]
    assert complete("predict", "runs", "tr") == ["train.tsv"]
    assert complete("check", "tr") == ["train.tsv"]


@pytest.mark.parametrize("complete", ["bash"], indirect=True)
def test_equals_signs_in_bash(complete):
    assert complete("fit", "classify", "--summary", "=", "me") == ["mean"]


def test_every_verb_has_a_parser_and_plain_words():
    found = places()
    assert {place.words[0] for place in found} == set(VERBS)
    for place in found:
        assert "--help" in place.options
        for values in [*place.positional, *place.options.values()]:
            for word in values.words if values else ():
                assert not set(word) & set(" '\"$`\\;&<>()*?[]{}"), word


def test_an_unknown_shell_is_refused(carousel):
    assert "invalid choice: 'tcsh'" in carousel("completion", "tcsh").refused()
