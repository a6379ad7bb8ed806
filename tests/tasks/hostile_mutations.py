"""Ways in which a run directory can be damaged, or made by somebody who means harm."""

import gzip
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

WEIGHTS = "model.safetensors"
Draw = random.Random

NASTY = (
    *(None, True, False, 0, 1, -1, 2, 3, 10**9, -(10**9), 2**31, 2**63 - 1, 2**63, 10**30, 10**400, 0.0, -0.5, 1e308, 1e-320),
    *(float("nan"), float("inf"), "", "x", "../../etc/passwd", "/etc/passwd", "os.system", "os:system", "auto", "lstm", "rhn"),
    *(
        "\ud800",
        "a\0b",
        "x" * 100_000,
        [],
        [1],
        ["a", "a"],
        {},
        {"a": 1},
        {"class_path": "os.system"},
        [[[[]]]],
        "1e-3",
        "null",
    ),
)
YAML = (
    *(
        "a: &a [x, x]\nb: *a\n",
        "<<: {seed: 2}\n",
        "? [1]\n: 2\n",
        "{[1]: 2}\n",
        "seed: !!python/object/apply:os.system [true]\n",
    ),
    *(
        "seed: !!python/name:os.system\n",
        "seed: !!binary aGVsbG8=\n",
        "seed: 2001-99-99\n",
        "seed: 2001-01-01\n",
        "--- a\n--- b\n",
    ),
    *(
        "seed: " + "9" * 5000 + "\n",
        "seed: 0x" + "f" * 5000 + "\n",
        "seed: 190:20:30\n",
        "seed: .nan\n",
        "seed: .inf\n",
        "\t\n",
        "%YAML 9\n",
    ),
    *(
        "seed: " + "[" * 5000 + "\n",
        "seed: " + "{a: " * 200 + "\n",
        "? " * 5000 + "\n",
        "- " * 5000 + "\n",
        "seed: !!set {a, b}\n",
    ),
    *(
        "seed: |\n" + " x\n" * 20000,
        "x" * 70_000 + ": 1\n",
        "".join(f"k{i}: 1\n" for i in range(4000)),
        "vectors: /etc/passwd\n",
    ),
    *(
        "cell: os.system\n",
        "class_path: os.system\n",
        "code: evil.py\n",
        "task: ../classify\n",
        "task: [classify]\n",
        "seed: *none\n",
    ),
    *("trainer: {logger: {class_path: os.system}}\n", "logger: os.system\n", "logger: csv\nlogger_options: {save_dir: /tmp}\n"),
    "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
)
CELLS = (
    "rhn",
    "clockwork_rnn",
    "mlstm",
    "slstm",
    "lstmp",
    "attention_gru",
    "conv_lstm",
    "gru_d",
    "jordan",
    "sru",
    "elman",
    "x/y",
)
CELL_OPTIONS = (
    "depth",
    "modules",
    "heads",
    "proj_size",
    "memory_size",
    "kernel_size",
    "activation",
    "forget_bias",
    "trace",
    "scale",
)
JSON = (
    *("", "null", "1", '"a"', "[]", "{}", "[" * 100_000, '{"a":' * 50_000, "NaN", "1e999", "9" * 5000, '"\\ud800"', "{" * 10),
    *('{"labels": ["a", "a"]}', '{"labels": ["b", "a"]}', '{"labels": []}', '{"labels": ["\\ud800", "b"]}', '{"labels": "ab"}'),
    *(
        '{"tokens": [' + "0," * 100_000 + "0]}",
        '{"tokens": [' + "[]," * 50_000 + "[]]}",
        '{"a": 1, "a": 2}',
        "\ufeff{}",
        "[1]" * 3,
    ),
)


def mutate(run: Path, outside: Path, draw: Draw) -> str:
    """Change a run directory in one way, sometimes in two, and say how.

    Args:
        run: the directory.
        outside: a directory beside it, which nothing may read; it holds good copies of all files.
        draw: chooses.
    """
    kinds: list[tuple[Callable[[Path, Path, Draw], str], int]] = [
        *((bytes_of_a_file, 30), (header_bytes, 10), (weights_header, 15), (option, 20), (yaml_lines, 8)),
        *((cell, 8), (json_text, 8), (json_value, 12), (files, 12), (numbers, 3), (best, 4)),
    ]
    functions, weights = zip(*kinds, strict=True)
    count = 2 if draw.random() < 0.1 else 1
    said = []
    for change in draw.choices(functions, weights, k=count):
        try:
            said.append(change(run, outside, draw))
        except OSError as error:  # the change before left nothing to change
            said.append(f"nothing: {error}")
    return " + ".join(said)


def put(path: Path, content: bytes) -> None:
    """Write a file of the run, never through a link that a change before has made."""
    if path.is_symlink() or path.is_fifo():
        path.unlink()
    path.write_bytes(content)


def described(run: Path) -> list[Path]:
    """The files that are read when a model is loaded, and are there."""
    found = [path for path in sorted(run.iterdir()) if path.suffix in (".json", ".yaml", ".safetensors")]
    return [path for path in found if path.is_file() and not path.is_symlink() and not path.name.startswith("report")] or [
        run / "config.yaml"
    ]


def bytes_of_a_file(run: Path, _: Path, draw: Draw) -> str:
    path = draw.choice(described(run))
    raw = path.read_bytes() if path.exists() else b"x"
    at, to = sorted((draw.randrange(len(raw) + 1), draw.randrange(len(raw) + 1)))
    noise = draw.randbytes(draw.choice((1, 2, 8, 200)))
    flipped = bytearray(raw or b"x")
    flipped[min(at, len(flipped) - 1)] ^= 1 << draw.randrange(8)
    changed = draw.choice(
        [
            *(bytes(flipped), bytes(flipped), bytes(flipped), raw[:at], raw[at:], raw[:at] + raw[to:], raw * 2, noise, b""),
            *(raw[:at] + raw[at:to] * 2 + raw[to:], raw[:at] + noise + raw[at:], raw[:at] + noise + raw[at + len(noise) :]),
            bytes(len(raw)),
        ]
    )
    put(path, changed)
    return f"bytes of {path.name}"


def best(run: Path, _: Path, draw: Draw) -> str:
    """A run whose training did not finish, with damage to its best checkpoint."""
    (run / WEIGHTS).unlink(missing_ok=True)
    path = run / "best" / draw.choice((WEIGHTS, WEIGHTS, "manifest.json", "trainer.json"))
    raw = bytearray(path.read_bytes())
    for _unused in range(draw.randrange(3)):
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    put(path, bytes(raw if draw.random() < 0.7 else raw[: draw.randrange(len(raw))]))
    return f"best/{path.name}"


def header_bytes(run: Path, _: Path, draw: Draw) -> str:
    path = run / WEIGHTS
    raw = bytearray(path.read_bytes()) if path.is_file() else bytearray(b"x")
    end = min(len(raw), 8 + (struct.unpack("<Q", raw[:8])[0] if len(raw) > 8 else 0))
    for _unused in range(draw.choice((1, 1, 3))):
        raw[draw.randrange(min(draw.choice((8, max(end, 1))), len(raw)))] = draw.randrange(256)
    put(path, bytes(raw))
    return "the weights' header, as bytes"


def weights_header(run: Path, _: Path, draw: Draw) -> str:
    path = run / WEIGHTS
    raw = path.read_bytes() if path.is_file() else b""
    try:
        size = struct.unpack("<Q", raw[:8])[0]
        header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    except (struct.error, ValueError):
        return "nothing: no header is left"
    names = [name for name in header if name != "__metadata__"] or ["__metadata__"]
    name, other = draw.choice(names), draw.choice(names)
    entry = header[name]
    change = draw.randrange(9)
    if change == 0:
        entry["shape"] = draw.choice(
            ([10**9, 10**9], [2**62, 4], [-1], [0], [], [1] * 100, entry.get("shape", [])[::-1], ["a"], 3)
        )
    elif change == 1:
        entry["dtype"] = draw.choice(("F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "XX", None, 3))
    elif change == 2:
        entry["data_offsets"] = draw.choice(
            ([0, 10**15], [-1, 4], [4, 0], [0, 0], [0], None, [2**63, 2**64], header[other].get("data_offsets"))
        )
    elif change == 3:
        header["evil" if draw.random() < 0.5 else other] = header.pop(name)
    elif change == 4:
        del header[name]
    elif change == 5:
        header["extra"] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    elif change == 6:
        header["__metadata__"] = draw.choice((None, [], {"carousel": 3}, {"carousel": "x" * 10**5}, {"format": "evil"}))
    elif change == 7:
        header = draw.choice(([], {}, None, {str(i): entry for i in range(3000)}, {name: None}))
    else:
        header[name] = draw.choice(NASTY[:30])
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    length = draw.choice((len(text),) * 8 + (2**63, 2**64 - 1, 0, len(text) + 1, 10**8))
    put(path, struct.pack("<Q", length) + text + body)
    return f"the weights' header, change {change}"


def numbers(run: Path, _: Path, draw: Draw) -> str:
    path = run / WEIGHTS
    raw = bytearray(path.read_bytes()) if path.is_file() else bytearray(64)
    at = max(0, len(raw) - 4 * draw.randint(1, max(1, len(raw) // 8)))
    raw[at : at + 4] = struct.pack("<f", draw.choice((float("nan"), float("inf"), -float("inf"), 3e38)))
    put(path, bytes(raw))
    return "numbers that are none"


def config_lines(run: Path) -> list[str]:
    path = run / "config.yaml"
    return path.read_text("utf-8", "replace").splitlines() if path.is_file() else []


def write_lines(run: Path, lines: list[str]) -> None:
    put(run / "config.yaml", ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))


def option(run: Path, _: Path, draw: Draw) -> str:
    lines = [line for line in config_lines(run) if not line.startswith("#")] or ["seed: 1"]
    at = draw.randrange(len(lines))
    name = lines[at].split(":")[0]
    change = draw.randrange(10)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.append(lines[at])
    elif change == 2:
        lines[at] = "unknown" + lines[at]
    else:  # JSON is YAML
        lines[at] = f"{name}: {json.dumps(draw.choice(NASTY)).replace('NaN', '.nan').replace('Infinity', '.inf')}"
    write_lines(run, lines)
    return f"option {name.strip()}"


def yaml_lines(run: Path, _: Path, draw: Draw) -> str:
    added = draw.choice(YAML)
    key = added.split(":")[0]
    lines = [line for line in config_lines(run) if line.split(":")[0] != key]
    write_lines(run, [added.rstrip("\n")] if draw.random() < 0.2 else [*lines, added.rstrip("\n")])
    return f"YAML {added[:20]!r}"


def cell(run: Path, _: Path, draw: Draw) -> str:
    lines = [line for line in config_lines(run) if line.split(":")[0] not in ("cell", "cell_options") and line[:1] != " "]
    name = draw.choice(CELLS)
    options = {draw.choice(CELL_OPTIONS): draw.choice(NASTY[:28]) for _unused in range(draw.randrange(3))}
    said = json.dumps(options).replace("NaN", ".nan").replace("Infinity", ".inf")
    write_lines(run, [*lines, f"cell: {name}", f"cell_options: {said}"])
    return f"cell {name} {said}"


def json_files(run: Path) -> list[Path]:
    return [path for path in described(run) if path.suffix == ".json"]


def json_text(run: Path, _: Path, draw: Draw) -> str:
    path = draw.choice(json_files(run) or [run / "labels.json"])
    text = draw.choice(JSON)
    put(path, text.encode())
    return f"{path.name} is {text[:20]}"


def json_value(run: Path, _: Path, draw: Draw) -> str:
    path = draw.choice(json_files(run) or [run / "labels.json"])
    if not path.is_file():
        return "nothing: no JSON is left"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return "nothing: it is no JSON any more"
    places: list[tuple[object, object]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict | list):
            for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                places.append((value, key))
                walk(item)

    walk(content)
    if not places:
        return "nothing: there is nothing in it"
    holder, key = draw.choice(places)
    change = draw.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, list):
        holder[key], holder[0] = holder[0], holder[key]
    elif change == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif change == 3 and isinstance(holder[key], str):
        words = holder[key].split(" ")
        words[draw.randrange(len(words))] = draw.choice(
            ("0", "255", "256", "257", "-1", "99999999999", "x", "1.5", "", "٣", "9" * 5000)
        )
        holder[key] = draw.choice((" ".join(words), " ".join(words * 200), holder[key] * 3000, holder[key][::-1]))
    else:
        holder[key] = draw.choice(NASTY)
    put(path, json.dumps(content).encode("utf-8", "surrogatepass"))
    return f"{path.name} at {key}"


def files(run: Path, outside: Path, draw: Draw) -> str:
    path = draw.choice(described(run))
    other = draw.choice(described(run))
    change = draw.randrange(14)
    if change == 0:
        path.unlink(missing_ok=True)
    elif change == 1:
        shutil.copyfile(other, (temporary := run / "temporary"))
        path.replace(other)
        temporary.replace(path)
    elif change == 2:
        path.unlink(missing_ok=True)
        path.mkdir()
    elif change == 3:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    elif change == 4:
        put(path, gzip.compress(path.read_bytes() * draw.choice((1, 3000))))
    elif change == 5:
        (run / WEIGHTS).unlink(missing_ok=True)  # as if training had not finished: best/ counts
        shutil.copyfile(other, run / "best" / draw.choice((other.name, "manifest.json", WEIGHTS)))
    elif change == 6:
        shutil.rmtree(run / "best", ignore_errors=True)
        (run / "best").symlink_to(outside)
        (run / WEIGHTS).unlink(missing_ok=True)
    elif change == 7:
        put(path, path.read_bytes() + b" " * 3_000_000)
    else:
        away = (outside / path.name, Path("..") / outside.name / path.name, run / ".." / outside.name / path.name, "/dev/zero")
        path.unlink(missing_ok=True)
        path.symlink_to(draw.choice((*away, *away, path.name, "gone", other.name, ".", "..")))
    return f"files, change {change}"
