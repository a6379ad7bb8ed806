"""Reads assembly code: its innermost loops, what they multiply, whether they touch the stack."""

import re

_LABEL = re.compile(r"^([.\w$]+):")
_JUMP = re.compile(r"^\s+(?:j[a-z]+|b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+,\s*#\d+,)\s+([.\w$]+)\s*$")
MULTIPLY = re.compile(r"^\s+(?:vfn?m(?:add|sub)\w+p[sd]|v?mulp[sd]|fml[as])\b")
_STACK = re.compile(r"\(%rsp|\[sp\b")
_FRAME = re.compile(r"\(%rbp|\[x29\b")  # where a function keeps such a pointer; else these are registers like others


def innermost(text):
    """The innermost loops: from a label to a jump back to it, with no other such piece inside."""
    lines = text.splitlines()
    where = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.match(line))}
    spans = []
    for i, line in enumerate(lines):
        match = _JUMP.match(line)
        if match and where.get(match[1], i) < i:
            spans.append((where[match[1]], i))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [lines[first : last + 1] for first, last in inner]


def loops(text):
    """Those of them that multiply vectors."""
    return [loop for loop in innermost(text) if any(MULTIPLY.match(line) for line in loop)]


def stack_traffic(text):
    """Lines in such loops that read or write the stack."""
    framed = re.search(r"movq\s+%rsp, %rbp|mov\s+x29, sp|add\s+x29, sp", text)
    return [line for loop in loops(text) for line in loop if _STACK.search(line) or (framed and _FRAME.search(line))]
