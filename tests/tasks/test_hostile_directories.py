"""Run directories that are damaged, or made by somebody who means harm: one of our errors, nothing run, read or filled."""

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from carousel.errors import CarouselError, CheckpointError
from carousel.tasks import Classifier
from tasks.conftest import QUICK, sentences

COUNT = 10_000 if os.environ.get("CAROUSEL_TEST_NIGHTLY") else 120


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[Path]:
    """A run for each kind of input and of target."""
    folder = tmp_path_factory.mktemp("sources")
    pairs = sentences(40, seed=1)
    texts, words = zip(*pairs, strict=True)
    quick = QUICK | {"epochs": 1}
    numbers = [[[float(len(word)), at % 3] for at, word in enumerate(text.split() or ["a"])] for text in texts]
    Classifier(**quick).fit(texts, words, out=folder / "words")
    Classifier(**quick, unit="subword", vocab_size=300).fit(texts, words, out=folder / "subwords")
    Classifier(**quick, source="series", cell="gru").fit(numbers, words, out=folder / "series")
    Classifier(**quick, unit="char", target="several").fit(texts, [{word, "z"} for word in words], out=folder / "several")
    return sorted(folder.iterdir())


@pytest.fixture
def run(run_dir, tmp_path) -> Path:
    """A copy of a good run, to be made a bad one."""
    return shutil.copytree(run_dir, tmp_path / "run")


def set_option(run: Path, text: str) -> None:
    """Let the configuration say `text`, instead of what it says of the options in it."""
    changed = {line.split(":")[0] for line in text.splitlines()}
    kept: list[str] = []
    for line in (run / "config.yaml").read_text().splitlines():
        name = line.split(":")[0] if line[:1] != " " else name  # an indented line goes on
        kept += [] if name in changed else [line]
    (run / "config.yaml").write_text("\n".join(kept) + "\n" + text)


def test_mutated_directories(sources, tmp_path):
    """In a program of its own, because it counts memory and watches all that the interpreter opens, imports and starts."""
    driver = Path(__file__).with_name("hostile_driver.py")
    words = [sys.executable, driver, tmp_path, "1", str(COUNT), *sources]
    environment = os.environ | {"PYTHONPATH": str(driver.parent.parent)}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["count"] == COUNT
    assert sum(result["found"].values()) >= 0.9 * COUNT
    assert result["found"]["CheckpointError"] > COUNT / 10
    assert result["found"]["ConfigError"] > COUNT / 50
    assert result["found"]["loaded"] > COUNT / 100  # not everything does harm
    assert result["failures"] == []


def test_the_watch_sees(sources):
    """What the mutations are checked with finds what it looks for."""
    code = """
import json, os, socket, subprocess, sys, time
from pathlib import Path
from collections import Counter
from tasks import hostile_driver as driver
watch = driver.Watch()
sys.addaudithook(watch)
def evil(run, device):
    open("/etc/hostname").close()
    os.listdir("/")
    subprocess.run(["true"])
    socket.socket().close()
    import this_module_is_not_there
def slow(run, device):
    end = time.process_time() + 2.2
    while time.process_time() < end:
        pass
def large(run, device):
    return bytearray(os.urandom(60 << 20)) and None
for harm in (evil, slow, large):
    driver.Classifier.load = harm
    print(json.dumps(driver.examine(Path(sys.argv[1]), watch, Counter())))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, sources[0]], capture_output=True, text=True, env=environment, check=False
    )
    evil, slow, large = map(json.loads, done.stdout.splitlines())
    said = " ".join(evil)
    for sign in (
        "open /etc/hostname",
        "os.listdir /",
        "subprocess.Popen",
        "socket.",
        "import this_module",
        "ModuleNotFoundError",
    ):
        assert sign in said
    assert any(fault.endswith(" s") for fault in slow)
    if Path("/proc/self/clear_refs").exists():
        assert any("MiB for files" in fault for fault in large)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden_size: 1000000000", r"config.yaml:\d+: hidden_size does not fit.\n  got:      1000000000\n  expected: at most"),
        ("hidden_size: 9", r"model.safetensors: .* does not fit the configuration.\n  got: "),
        ("embedding_size: 999999999999", "embedding_size does not fit"),
        ("num_layers: 100000000", r"num_layers does not fit.\n  got:      100000000\n  expected: at most \d+: the weights are"),
        ("bidirectional: false", "does not fit the configuration"),
        ("hidden_size: 1" + "0" * 30, r"hidden_size: not a value for a configuration.\n  got:      a whole number of 100 bits"),
        ("seed: " + "9" * 5000, "holds a value that cannot be read"),
        ("seed: 2001-99-99", "holds a value that cannot be read"),
        ("seed: 2001-09-09", "not a value for a configuration.\n  got:      date 2001-09-09"),
        ("seed: &a 1", None),
        ("a: &a [x, x]\nb: *a", "aliases"),
        ("a: " + "[" * 30 + "]" * 30, "nested more than 20 deep"),
        ("a: " + "[" * 60000, "nested more than 20 deep"),
        ("x: " + "y" * 70000, "too large for a configuration"),
        ('text_field: "\\ud800"', "half of a surrogate pair"),
        ("cell: rhn\ncell_options: {depth: 1000000000}", "more than 20,000 operations"),
        ("cell_options: {forget_bias: .nan}", None),
        ("cell_options: {forget_bias: 1e308}", "does not fit its configuration: value cannot be converted"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_configurations(run, text, message):
    set_option(run, text)
    if message is None:
        Classifier.load(run)
        return
    with pytest.raises(CarouselError, match=message):
        Classifier.load(run)


@pytest.mark.parametrize("name", ["config.yaml", "vocabulary.json", "labels.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("absolute", [True, False])
def test_links_that_lead_out_are_not_followed(run, name, absolute):
    outside = run.with_name("outside")
    outside.mkdir()
    (run / name).rename(outside / name)
    (run / name).symlink_to(outside / name if absolute else Path("..") / "outside" / name)
    with pytest.raises(CheckpointError, match=f"{name}: a link that leads out of the run directory is not followed"):
        Classifier.load(run)


def test_other_links(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    assert Classifier.load(tmp_path / "latest").predict(["dull"]).tolist() == ["bad"]
    (run / "labels.json").rename(run / "names.json")
    (run / "labels.json").symlink_to("names.json")
    assert Classifier.load(run).predict(["dull"]).tolist() == ["bad"]
    (run / "circle.json").symlink_to("circle.json")
    with pytest.raises(CheckpointError, match="not followed"):
        Classifier.load(run)


def test_a_pipe_is_not_waited_for(run):
    (run / "labels.json").unlink()
    os.mkfifo(run / "labels.json")
    with pytest.raises(CheckpointError, match=r"labels\.json: not a file that a run directory holds"):
        Classifier.load(run)


def test_bombs(run):
    good = (run / "vocabulary.json").read_bytes()
    (run / "vocabulary.json").write_bytes(gzip.compress(good))
    with pytest.raises(CheckpointError, match="compressed"):
        Classifier.load(run)
    (run / "vocabulary.json").write_bytes(good + b" " * 2_000_000)
    with pytest.raises(CheckpointError, match="larger than it can be"):
        Classifier.load(run)
    (run / "vocabulary.json").write_bytes(b"[" * 500_000)
    with pytest.raises(CarouselError, match="not valid JSON"):
        Classifier.load(run)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_no_numbers(run, value):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", float(value)))
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        Classifier.load(run)


def test_weights_of_another_network(run):
    import safetensors.torch

    path = run / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    name = next(iter(weights))
    safetensors.torch.save_file(weights | {"extra": torch.zeros(1)}, path)
    with pytest.raises(
        CheckpointError, match=r"extra does not fit the configuration.\n  got:      \(1,\)\n  expected: no such"
    ):
        Classifier.load(run)
    safetensors.torch.save_file({key: value for key, value in weights.items() if key != name}, path)
    with pytest.raises(CheckpointError, match="no such tensor"):
        Classifier.load(run)


def test_labels_and_tokens_must_be_as_many_as_the_weights_say(run):
    path = run / "vocabulary.json"
    content = json.loads(path.read_text())
    content["tokens"] += [f"more{number}" for number in range(5000)]
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="does not fit the configuration"):
        Classifier.load(run)


def test_the_best_checkpoint_is_checked_too(run):
    (run / "model.safetensors").unlink()
    before = Classifier.load(run).predict(["dull", "moving"]).tolist()
    assert before == ["bad", "good"]
    weights = run / "best" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError, match=r"no trained weights|damaged"):
        Classifier.load(run)
