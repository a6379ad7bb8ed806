"""Files larger than the memory they may take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import json, sys
from array import array
from carousel.data import BucketedBatches, LabelSet, Sequences, Vocabulary, labelled_examples

def held():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024  # MiB

def watched(examples):
    global most
    for number, example in enumerate(examples):
        if number % 5000 == 0:
            most = max(most, held())
        yield example

path, limit = sys.argv[1], int(sys.argv[2])
BucketedBatches([[1]], batch_size=1, shuffle=True)  # the tensor library is no part of the data
before = most = held()
vocabulary = Vocabulary.count(example.text.split() for example in watched(labelled_examples(path)))
labels = LabelSet(example.label for example in labelled_examples(path))
numbers = array("b")

def rows():
    for example in watched(labelled_examples(path)):
        numbers.append(labels.encode(example.label))
        yield vocabulary.encode(example.text.split())

sequences = Sequences.build(rows(), memory_limit=limit)
batches = BucketedBatches(sequences, numbers, batch_size=256, shuffle=True)
tokens = sum(batch.token_count for batch in watched(batches))
print(json.dumps({"rows": len(sequences), "tokens": tokens, "on_disk": sequences.on_disk, "grown": max(most, held()) - before}))
"""


def read(path, limit):
    done = subprocess.run([sys.executable, "-c", READ, str(path), str(limit)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_a_file_of_thirty_megabytes_takes_little_memory(tmp_path):
    path = tmp_path / "large.tsv"
    lines = [f"{'pos' if n % 3 else 'neg'}\t" + " ".join(f"{n * k % 999:x}" for k in range(1, 300)) + "\n" for n in range(300)]
    count = 30_000_000 // sum(map(len, lines)) + 1
    with path.open("w") as stream:
        stream.write("label\ttext\n")
        for _ in range(count):
            stream.writelines(lines)
    on_disk, in_memory = read(path, 1 << 20), read(path, 1 << 30)
    assert on_disk["rows"] == in_memory["rows"] == 300 * count
    assert on_disk["tokens"] == in_memory["tokens"] == 299 * 300 * count
    assert (on_disk["on_disk"], in_memory["on_disk"]) == (True, False)
    assert in_memory["grown"] > 4 * in_memory["tokens"] / (1 << 20)  # 4 bytes a token: the measure measures
    assert on_disk["grown"] < 16  # 6 here, 4 of them the buffer that is written at once
