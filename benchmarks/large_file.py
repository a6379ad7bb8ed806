"""Train on a text file that is larger than the memory allowed, and watch the memory.

    python benchmarks/large_file.py --megabytes 2000 --limit 1024           # the whole task `classify`
    python benchmarks/large_file.py --megabytes 300 --limit 512 --only-data  # reading, counting and batching alone

The file is made up: words drawn as in a natural language (Zipf's law over a million of them), and two labels that some
frequent words give away. A child process trains; this one looks at its memory ten times a second. What counts is
`RssAnon`, the pages that nothing but the process holds. Pages of mapped files (`RssFile`: the libraries' code, and the
numbers of the tokens on disk) are the system's to drop whenever it wants the room, so they are shown, but do not count.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TYPES, WORDS = 1_000_000, 18  # different words; words on a line, on average
LINES = 20_000  # made at once
VALID_LINES = 2_000


def make_files(folder: Path, megabytes: int) -> tuple[Path, Path]:
    """A file of that size to train on, and a small one to validate on."""
    train, valid = folder / "train.tsv", folder / "valid.tsv"
    generator = np.random.default_rng(1)
    words = np.array([f"w{n:x}" for n in range(TYPES)])
    cumulated = np.cumsum(1.0 / np.arange(10, TYPES + 10))
    with valid.open("w") as stream:
        stream.write("label\ttext\n" + "".join(block(generator, words, cumulated)[:VALID_LINES]))
    with train.open("w") as stream:
        stream.write("label\ttext\n")
        while stream.tell() < megabytes << 20:
            stream.writelines(block(generator, words, cumulated))
    return train, valid


def block(generator: np.random.Generator, words: np.ndarray, cumulated: np.ndarray) -> list[str]:
    lengths = generator.integers(2, 2 * WORDS, LINES)
    drawn = np.searchsorted(cumulated, generator.random(int(lengths.sum())) * cumulated[-1])
    text, lines, start = words[drawn], [], 0
    for length in lengths:
        numbers = drawn[start : start + length]
        label = "pos" if ((numbers < 200) & (numbers % 2 == 0)).sum() >= ((numbers < 200) & (numbers % 2 == 1)).sum() else "neg"
        lines.append(f"{label}\t{' '.join(text[start : start + length])}\n")
        start += length
    return lines


# --- in the child process -------------------------------------------------------------------------------------------------


def train(folder: Path, minutes: float, limit: int) -> None:
    from carousel.tasks import Classifier

    model = Classifier(
        hidden_size=64, embedding_size=64, max_vocab=50_000, batch_size=64, memory_limit=limit,
        max_minutes=minutes, epochs=1, threads=1,
    )  # fmt: skip
    model.fit(folder / "train.tsv", folder / "valid.tsv", out=folder / "run")
    print(json.dumps({"accuracy": model.evaluate(folder / "valid.tsv")["accuracy"]}), flush=True)


def only_data(folder: Path, limit: int) -> None:
    from array import array

    from carousel.data import BucketedBatches, LabelSet, Sequences, Tokenizer, Vocabulary, labelled_examples

    path, tokenizer = folder / "train.tsv", Tokenizer("word")
    start = time.perf_counter()
    found: set[str] = set()

    def counted():
        for example in labelled_examples(path):
            found.add(example.label)
            yield tokenizer.tokenize(example.text)

    vocabulary = Vocabulary.count(counted(), max_size=50_000)
    labels, numbers = LabelSet(found), array("b")
    times = {"counting": time.perf_counter() - start}

    def rows():
        for example in labelled_examples(path):
            numbers.append(labels.encode(example.label))
            yield vocabulary.encode(tokenizer.tokenize(example.text))

    start = time.perf_counter()
    sequences = Sequences.build(rows(), memory_limit=(limit << 20) // 4)
    times["encoding"] = time.perf_counter() - start
    start = time.perf_counter()
    batches = BucketedBatches(sequences, np.frombuffer(numbers, np.int8), batch_size=64, shuffle=True)
    tokens = sum(batch.token_count for batch in batches)
    times["an epoch of batches"] = time.perf_counter() - start
    seconds = {name: round(number, 1) for name, number in times.items()}
    print(json.dumps({"rows": len(sequences), "tokens": tokens, "on disk": sequences.on_disk, "seconds": seconds}), flush=True)


# --- in the parent process ------------------------------------------------------------------------------------------------


def watch(command: list[str]) -> dict[str, int]:
    """Run a command; the most memory it took, in MiB, by kind."""
    most = {"RssAnon": 0, "RssFile": 0, "VmRSS": 0}
    with subprocess.Popen(command) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            try:
                for line in status.read_text().splitlines():
                    name, _, rest = line.partition(":")
                    if name in most and rest:
                        most[name] = max(most[name], int(rest.split()[0]) >> 10)
            except (OSError, IndexError):
                pass  # it ended just now
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(process.returncode)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--limit", type=int, default=1024, help="MiB")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training")
    parser.add_argument("--only-data", action="store_true")
    parser.add_argument("--folder", type=Path, help="in which the file is made; by default a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.only_data:
            only_data(options.child, options.limit)
        else:
            train(options.child, options.minutes, options.limit)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        start = time.perf_counter()
        path, _ = make_files(Path(folder), options.megabytes)
        print(f"{path.stat().st_size >> 20} MiB of text made in {time.perf_counter() - start:.0f} s", flush=True)
        arguments = [__file__, "--child", folder, "--limit", str(options.limit), "--minutes", str(options.minutes)]
        most = watch([sys.executable, *arguments, *(["--only-data"] if options.only_data else [])])
    print(json.dumps({"megabytes": options.megabytes, "limit": options.limit, "MiB at most": most}))
    if most["RssAnon"] > options.limit:
        raise SystemExit(f"{most['RssAnon']} MiB are more than the limit of {options.limit}")


if __name__ == "__main__":
    main()
