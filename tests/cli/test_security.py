"""Nothing but ``--code`` on the command line imports a user's module; nothing in a file does."""

import shutil
import subprocess
import sys

import pytest

EVIL = """
import pathlib
pathlib.Path(__file__).with_suffix(".was-run").touch()
from carousel.graph import Cell, tanh
class MyCell(Cell):
    state = ("h",)
    def step(self, x, h):
        return tanh(self.affine("h", x, h))
"""

ATTACKS = {
    "a code key": "code: evil.py\n",
    "a cell in a module": "cell: evil.MyCell\n",
    "a cell in a module, with a colon": "cell: evil:MyCell\n",
    "a cell in a file": "cell: ./evil.py\n",
    "a function of the system": "cell: os:system\n",
    "a dotted function": "cell: os.system\n",
    "a class path": "class_path: evil.MyCell\n",
    "a class path as the cell": "cell:\n  class_path: evil.MyCell\n",
    "a class path of the system": "cell:\n  class_path: os.system\n  init_args: {command: touch owned}\n",
    "a class path in the trainer": "trainer:\n  logger:\n    class_path: os.system\n    init_args: {command: touch owned}\n",
    "a class path in the cell's options": "cell_options:\n  activation: {class_path: evil.MyCell}\n",
    "a class path in a list": "trainer: {callbacks: [{class_path: evil.MyCell}]}\n",
    "a python tag": "seed: !!python/object/apply:os.system [touch owned]\n",
    "a module tag": "cell: !!python/name:evil.MyCell\n",
    "a custom cell without code": "cell: MyCell\ncustom_cell: true\n",
}

# A process of its own, in which every import, every started program and every executed file of the user is seen.
WATCHED = """
import sys
seen = []
def watch(event, arguments):
    if event == "import" and str(arguments[0]).split(".")[0] == "evil":
        seen.append("import " + str(arguments[0]))
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        seen.append(event)
    if event == "open" and str(arguments[0]).endswith("evil.py"):
        seen.append("open " + str(arguments[0]))
sys.addaudithook(watch)
from carousel.cli.main import main
codes = []
for config in sys.argv[1:]:
    codes.append(main(["fit", "classify", "--train", "train.tsv", "--out", "run", "--config", config]))
assert codes == [2] * len(codes), codes
assert not seen, seen
assert "evil" not in sys.modules
"""


@pytest.fixture
def folder(tmp_path, data, monkeypatch):
    """A working directory with an importable evil.py and real data."""
    (tmp_path / "evil.py").write_text(EVIL)
    shutil.copy(data / "train.tsv", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_no_configuration_imports_or_runs_anything(folder):
    files = []
    for number, text in enumerate(ATTACKS.values()):
        files.append(f"{number}.yaml")
        (folder / files[-1]).write_text(text)
    before = sorted(path.name for path in folder.iterdir())
    done = subprocess.run([sys.executable, "-c", WATCHED, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_one_message_with_its_line(carousel, folder, name):
    (folder / "c.yaml").write_text(ATTACKS[name])
    refused = carousel("fit", "classify", "--train", "train.tsv", "--out", "run", "--config", "c.yaml").refused()
    assert "c.yaml:" in refused or "option cell: " in refused
    assert not (folder / "evil.was-run").exists()
    assert not (folder / "run").exists()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_no_saved_run_imports_or_runs_anything(carousel, folder, run_dir, name, verb):
    copy = shutil.copytree(run_dir, folder / "saved")
    config = copy / "config.yaml"
    keys = [line.split(":")[0] for line in ATTACKS[name].splitlines() if not line.startswith(" ")]
    kept = [line for line in config.read_text().splitlines() if line.split(":")[0] not in keys]
    if "cell_options" in keys or "cell" in keys:
        kept = [line for line in kept if "forget_bias" not in line and not line.startswith("cell_options")]
    config.write_text("\n".join(kept) + "\n" + ATTACKS[name])
    words = [verb, copy, "--data", "train.tsv"] if verb == "evaluate" else [verb, copy, "train.tsv"]
    assert "config.yaml:" in carousel(*words).refused()
    assert not (folder / "evil.was-run").exists()
    assert not (folder / "owned").exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("words", [["--trainer.logger.class_path", "evil.MyCell"], ["--cell", "{class_path: evil.MyCell}"]])
def test_no_option_but_code_imports_anything(carousel, folder, quick, words):
    carousel("fit", "classify", "--train", "train.tsv", "--out", "run", *quick, *words).refused()
    assert not (folder / "evil.was-run").exists()


def test_code_on_the_command_line_does(carousel, folder, quick):
    words = ["--train", "train.tsv", "--out", "run", *quick, "--epochs", "1", "--code", "evil.py", "--cell", "MyCell"]
    said = carousel("fit", "classify", *words)
    assert said.code == 0, said.err
    assert (folder / "evil.was-run").exists()
    (folder / "evil.was-run").unlink()

    assert "own cell 'MyCell'" in carousel("predict", "run", "train.tsv").refused()
    assert not (folder / "evil.was-run").exists()
    assert carousel("predict", "run", "train.tsv", "--code", "evil.py").code == 0
    assert carousel("predict", "run", "train.tsv", "--code", "evil.py", "--cell", "MyCell").code == 0
    words = ["--config", "run/config.yaml", "--out", "again"]
    assert "is a cell of your own" in carousel("fit", "classify", *words).refused()
    assert carousel("fit", "classify", *words, "--code", "evil.py").code == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = = 1\n", "my.py:1: SyntaxError: invalid syntax"),
        ("x = 1\n\nundefined\n", "my.py:3: NameError: name 'undefined' is not defined"),
        ("import not_there\n", "my.py:1: ModuleNotFoundError: No module named 'not_there'"),
        ("x = 1\n", "my.py: defines no cell"),
        (EVIL, "my.py: unknown cell 'MyCel'"),
        ("raise SystemExit(0)\n", "my.py:1: SystemExit"),
    ],
)
def test_faulty_code_is_one_message_with_its_line(carousel, folder, content, message):
    (folder / "my.py").write_text(content)
    words = ["--train", "train.tsv", "--out", "run", "--code", "my.py", "--cell", "MyCel"]
    assert message in carousel("fit", "classify", *words).refused()
    assert not (folder / "run").exists()


def test_faulty_equations_are_one_message_with_their_line(carousel, folder):
    (folder / "my.py").write_text(EVIL.replace("return tanh", "return tahn"))
    words = ["--train", "train.tsv", "--out", "run", "--code", "my.py"]
    refused = carousel("fit", "classify", *words).refused()
    assert "my.py" in refused
    assert "tahn" in refused


def test_one_cell_in_the_file_needs_no_name_and_two_do(carousel, folder, quick):
    (folder / "two.py").write_text(EVIL + EVIL.replace("MyCell", "Other"))
    words = ["--train", "train.tsv", "--out", "run", *quick, "--epochs", "1", "--code"]
    assert (
        "two.py: defines 2 cells.\n  try:      --cell MyCell or --cell Other"
        in carousel("fit", "classify", *words, "two.py").refused()
    )
    assert carousel("fit", "classify", *words, "evil.py").code == 0
