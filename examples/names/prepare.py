"""Make train.tsv and valid.tsv from the public folder of surnames: one file a language, one name a line.

    python examples/names/prepare.py FOLDER

FOLDER is data/names of https://github.com/spro/practical-pytorch.
"""

import argparse
import hashlib
import unicodedata
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
VALID_SHARE = 0.1
CORRECTIONS = {"Maxa/B": "Maxa", "Novy Novy": "Novy", "an": "An"}  # a slash, a name written twice, a lost capital


def read(folder):
    """All (language, name) pairs, each once, in sorted order."""
    pairs = set()
    for file in folder.glob("*.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            name = unicodedata.normalize("NFC", " ".join(line.split()))
            if name:
                pairs.add((file.stem, CORRECTIONS.get(name, name)))
    return sorted(pairs)


def split(pairs):
    """Training and validation: a tenth of each language, chosen by a hash, so the same on every machine."""
    train, valid = [], []
    for language in sorted({language for language, _ in pairs}):
        mine = sorted((pair for pair in pairs if pair[0] == language), key=fingerprint)
        count = max(1, round(VALID_SHARE * len(mine)))
        valid += mine[:count]
        train += mine[count:]
    return sorted(train), sorted(valid)


def fingerprint(pair):
    return hashlib.sha256("\t".join(pair).encode()).digest()


def write(path, pairs):
    lines = ["label\ttext", *("\t".join(pair) for pair in pairs)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def main():
    parser = argparse.ArgumentParser(description="Make train.tsv and valid.tsv from a folder of surnames.")
    parser.add_argument("folder", type=Path, help="one file a language, one name a line")
    pairs = read(parser.parse_args().folder)
    train, valid = split(pairs)
    write(HERE / "train.tsv", train)
    write(HERE / "valid.tsv", valid)

    languages_of = Counter(name for _, name in pairs)
    several = sum(count > 1 for count in languages_of.values())
    print(f"{len(pairs)} names of {len({language for language, _ in pairs})} languages: {len(train)} + {len(valid)}")
    print(f"{several} of {len(languages_of)} spellings occur in several languages: nobody can label more than", end=" ")
    print(f"{len(languages_of) / len(pairs):.1%} of all pairs")
    shared = sum(languages_of[name] > 1 for _, name in valid)
    print(f"{shared} of the {len(valid)} names for validation also belong to another language")
    for language, count in Counter(language for language, _ in pairs).most_common():
        print(f"  {language:<12} {count:>5}  validation {sum(pair[0] == language for pair in valid):>4}")


if __name__ == "__main__":
    main()
