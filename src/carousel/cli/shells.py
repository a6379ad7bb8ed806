"""The scripts of :mod:`carousel.cli.completion`, one writer for each shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carousel.cli.completion import Place, Values

__all__ = ["SHELLS"]

HEAD = "# Completion of the command `carousel`, printed by `carousel completion`.\n"

# bash and zsh understand the same choice. `place` is the verb, and the task behind it if it takes one.
CHOOSE = """\
_carousel_choose() {{  # the place, the word before, the word so far, how many arguments stand before it
    choices='' paths=''
    case "$1 $2" in
{values}    esac
    case "$1,$3" in
{options}    esac
    case "$1,$4" in
{positional}    esac
}}
_carousel_place() {{  # all words after `carousel` and before the one to complete
    place="$1" number=0
    case "$1" in
        {with_tasks}) if [ "$#" -gt 1 ]; then place="$1 $2"; shift; fi ;;
    esac
    shift
    for word in "$@"; do case "$word" in -*) ;; *) number=$((number + 1)) ;; esac; done
}}
"""

BASH = """\
_carousel() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" place number word choices paths
    # bash takes --option=value apart at the equals sign
    if [ "$cur" = "=" ]; then cur=''; elif [ "$prev" = "=" ]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices='VERBS' paths=''
    else
        _carousel_place "${COMP_WORDS[@]:1:COMP_CWORD-1}"
        _carousel_choose "$place" "$prev" "$cur" "$number"
    fi
    if [ -n "$choices" ]; then COMPREPLY=( $(compgen -W "$choices" -- "$cur") ); fi
    if [ -n "$paths" ]; then
        local IFS=$'\\n' kind=-f
        if [ "$paths" = dir ]; then kind=-d; fi
        compopt -o filenames 2>/dev/null
        COMPREPLY+=( $(compgen "$kind" -- "$cur") )
    fi
}
complete -F _carousel carousel
"""

ZSH = """\
_carousel() {
    local place number word choices paths
    if (( CURRENT == 2 )); then
        choices='VERBS' paths=''
    else
        _carousel_place "${(@)words[2,CURRENT-1]}"
        _carousel_choose "$place" "${words[CURRENT-1]}" "${words[CURRENT]}" "$number"
    fi
    if [ -n "$choices" ]; then compadd -- ${=choices}; fi
    if [ "$paths" = dir ]; then _files -/; elif [ -n "$paths" ]; then _files; fi
}
if [[ "${funcstack[1]}" == _carousel ]]; then _carousel "$@"; else compdef _carousel carousel; fi
"""

FISH = """\
function __carousel_at
    set -l given (commandline -opc)
    test (count $given) -gt (count $argv); or return 1
    for number in (seq (count $argv))
        set -l at (math $number + 1)
        test "$given[$at]" = "$argv[$number]"; or return 1
    end
end
function __carousel_after
    test (count (commandline -opc)) -eq (math (count $argv) + 1); and begin
        test (count $argv) -eq 0; or __carousel_at $argv
    end
end
complete -c carousel -f
complete -c carousel -n __carousel_after -l help -d 'all verbs'
complete -c carousel -n __carousel_after -l version -d 'the version'
"""


def _bash(places: Sequence[Place]) -> str:
    return HEAD + _choose(places) + BASH.replace("VERBS", _verbs(places))


def _zsh(places: Sequence[Place]) -> str:
    return "#compdef carousel\n" + HEAD + _choose(places) + ZSH.replace("VERBS", _verbs(places))


def _fish(places: Sequence[Place]) -> str:
    lines = [HEAD, FISH]
    for place in places:
        at = f"complete -c carousel -n '__carousel_at {' '.join(place.words)}'"
        before = f"complete -c carousel -n '{' '.join(('__carousel_after', *place.words[:-1]))}'"
        lines.append(f"{before} -a {place.words[-1]} -d '{_quoted(place.summary)}'\n")
        for option, values in place.options.items():
            lines.append(f"{at} -l {option[2:]}{_fish_values(values)} -d '{_quoted(place.helps.get(option, ''))}'\n")
        if place.words[0] in _with_tasks(places):
            continue
        name = " ".join(place.words)
        for number, values in enumerate(place.positional):
            first, last = f"__carousel_after {name}", f"__carousel_at {name}; and not __carousel_after {name}"
            where = f"__carousel_at {name}" if len(place.positional) == 1 else last if number else first
            if values.words or values.paths:
                what = _fish_values(values).replace(" -r", "").replace(" -x", "")
                lines.append(f"complete -c carousel -n '{where}'{what}\n")
    return "".join(lines)


def _fish_values(values: Values | None) -> str:
    if values is None:
        return ""
    text = {"file": " -r -F", "dir": " -x -a '(__fish_complete_directories)'", None: " -x"}[values.paths]
    return text + (f" -a '{' '.join(values.words)}'" if values.words else "")


def _choose(places: Sequence[Place]) -> str:
    def assign(values: Values) -> str:
        return f"choices='{' '.join(values.words)}' paths='{values.paths or ''}'"

    values, options, positional = "", "", ""
    for place in places:
        name = " ".join(place.words)
        for after, names in _grouped(place).items():
            patterns = "|".join(f"'{name} {option}'" for option in names)
            values += f"        {patterns}) {assign(after)}; return ;;\n"
        options += f"        '{name},-'*) choices='{' '.join(place.options)}'; return ;;\n"
        for number, after in enumerate(place.positional):
            count = "'*" if number == len(place.positional) - 1 else f"{number}'"
            positional += f"        '{name},{count}) {assign(after)} ;;\n"
    tasks = "|".join(_with_tasks(places))
    return CHOOSE.format(values=values, options=options, positional=positional, with_tasks=tasks)


def _grouped(place: Place) -> Mapping[Values, Sequence[str]]:
    """The options of a place that take a value, by what they take."""
    groups: dict[Values, list[str]] = {}
    for option, values in place.options.items():
        if values is not None:
            groups.setdefault(values, []).append(option)
    return groups


def _with_tasks(places: Sequence[Place]) -> list[str]:
    return sorted({place.words[0] for place in places if len(place.words) == 2})


def _verbs(places: Sequence[Place]) -> str:
    return " ".join([*(place.words[0] for place in places if len(place.words) == 1), "--help", "--version"])


def _quoted(text: str) -> str:
    return text.splitlines()[0].replace("\\", "").replace("'", "\\'") if text else ""


SHELLS: Mapping[str, Callable[[Sequence[Place]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
