"""``fuservice completion SHELL``: what makes the shell complete our words, made from the parser that reads them.

The scripts are committed too, in completions/, and installed where shells look for them; a test makes them anew and compares.
"""

from __future__ import annotations

import argparse
import re

from fuservice.backends.backend import NAMES
from fuservice.drivers import catalog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Final

    # Only a type to the type checker: argparse has no public name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: What the word that an option or a position takes is called in the help → what may be offered for it.
FILES, MOUNTS, DIRECTORIES = "files", "mounts", "directories"
_VALUES: Final[Mapping[str, str]] = {
    "SOURCE": FILES, "IMAGE": FILES, "MOUNTPOINT": MOUNTS, "DIR": DIRECTORIES, "DIRECTORY": DIRECTORIES, "FILE": FILES,
    "TYPE": " ".join(catalog.DRIVERS), "HOW": " ".join(NAMES), "SHELL": "bash zsh fish",
}  # fmt: skip
_MOUNTS: Final = r"""while read -r _ point type _; do [[ $type == fuse* ]] && printf '%b\n' "${point//\\0/\\00}"; done </proc/self/mounts"""


def add_command(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("completion", help="print what makes a shell complete words", description=__doc__)
    command.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the script."""
    print(script(options.shell), end="")


def script(shell: str) -> str:
    """Return the script for *shell*."""
    from fuservice.cli.main import parser  # which imports us

    top = parser()
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    return SHELLS[shell]([Command(name, helps[name], command) for name, command in commands.choices.items()])


class Command:
    """One command as shells need it: its options and what they take, and what its other words are."""

    def __init__(self, name: str, about: str, parser: argparse.ArgumentParser) -> None:
        self.name, self.about = name, about
        self.options = [action for action in parser._actions if action.option_strings]
        positions = [action for action in parser._actions if not action.option_strings]
        self.words = value(positions[0]) if positions else ""

    def flags(self) -> list[str]:
        """Return all names of options."""
        return [name for action in self.options for name in action.option_strings]


def value(action: argparse.Action) -> str:
    """Return what may be offered for the word that *action* takes: a kind, words, or "" for nothing."""
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return _VALUES.get(name, "")


def takes_value(action: argparse.Action) -> bool:
    """Say whether the option *action* is followed by a word."""
    return action.nargs != 0


# ---- bash ----


def _bash(commands: list[Command]) -> str:
    names = " ".join(command.name for command in commands)
    return "\n".join((
        "# bash completion for fuservice(1), made by `fuservice completion bash'.", "",
        "_fuservice_mounts() {", f"    local point type; {_MOUNTS}", "}", "",
        "_fuservice() {",
        "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} offer=",
        "    # bash takes --name=value for three words.",
        "    if [[ $current == = ]]; then current=; elif [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi",
        "    COMPREPLY=()",
        f'    if (( COMP_CWORD == 1 )); then offer="{names} --help --version"; else',
        "        case ${COMP_WORDS[1]} in",
        *(line for command in commands for line in _bash_case(command)),
        "        esac",
        "    fi",
        "    case $offer in",
        f"        {FILES}) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;;",
        f"        {DIRECTORIES}) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- \"$current\") ;;",
        f"        {MOUNTS}) compopt -o filenames 2>/dev/null",
        '            mapfile -t COMPREPLY < <(_fuservice_mounts | while IFS= read -r point; do [[ $point == "$current"* ]] && printf "%s\\n" "$point"; done',
        '                compgen -f -- "$current") ;;',
        '        *) mapfile -t COMPREPLY < <(compgen -W "$offer" -- "$current") ;;',
        "    esac",
        "}", "", "complete -F _fuservice fuservice", "",
    ))  # fmt: skip


def _bash_case(command: Command) -> Iterator[str]:
    yield f"            {command.name})"
    yield "                case $before in"
    for action in command.options:
        if takes_value(action):
            yield f"                    {'|'.join(action.option_strings)}) offer='{value(action)}' ;;"
    words = command.words or " ".join(command.flags())
    yield f"                    *) if [[ $current == -* ]]; then offer='{' '.join(command.flags())}'; else offer='{words}'; fi ;;"
    yield "                esac ;;"


# ---- zsh ----


def _zsh(commands: list[Command]) -> str:
    return "\n".join((
        "#compdef fuservice", "# zsh completion for fuservice(1), made by `fuservice completion zsh'.", "",
        "_fuservice_mounts() {", "    local -a points; local point type _",
        f"    points=(${{(f)\"$({_MOUNTS})\"}})", '    _alternative "mounts:mount point:compadd -a points" "files:source:_files"', "}", "",
        "_fuservice() {", "    local state line; typeset -A opt_args; local -a commands",
        "    commands=(", *(f"        {_quoted(f'{command.name}:{command.about}')}" for command in commands), "    )",
        "    _arguments -C '(- *)'{-h,--help}'[help]' '(- *)--version[the version]' '1: :->command' '*:: :->words'",
        "    case $state in", "        command) _describe command commands ;;", "        words)", "            case $words[1] in",
        *(line for command in commands for line in _zsh_case(command)),
        "            esac ;;", "    esac", "}", "",
        # Where it is autoloaded, this file is the function's body; where it is sourced, it is to be known by its name.
        'if [[ $funcstack[1] == _fuservice ]]; then _fuservice "$@"; else compdef _fuservice fuservice; fi', "",
    ))  # fmt: skip


def _zsh_case(command: Command) -> Iterator[str]:
    yield f"                {command.name})"
    yield "                    _arguments -s \\"
    for action in command.options:
        for name in action.option_strings:
            takes = (
                f":{_plain(action.metavar or action.dest)}:{_zsh_value(value(action))}" if takes_value(action) else ""
            )
            separator = ("=" if name.startswith("--") else "+") if takes else ""
            yield f"                        {_quoted(f'*{name}{separator}[{_plain(action.help)}]{takes}')} \\"
    yield f"                        {_quoted(f'*:word:{_zsh_value(command.words)}')} ;;"


def _zsh_value(offer: str) -> str:
    """Return what zsh calls what may be offered."""
    kinds = {FILES: "_files", DIRECTORIES: "_files -/", MOUNTS: "_fuservice_mounts", "": " "}
    return kinds.get(offer, f"({offer})")


def _plain(text: object) -> str:
    """Return *text* without what has a meaning in a specification of _arguments."""
    return re.sub(r"[\[\]:\\]", " ", str(text or "").replace("%%", "%"))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# ---- fish ----


def _fish(commands: list[Command]) -> str:
    lines = [
        "# fish completion for fuservice(1), made by `fuservice completion fish'.", "",
        "function __fuservice_mounts", "    string match -r '^\\S+ \\S+ fuse\\S*' </proc/self/mounts | string split -f 2 ' ' | string unescape", "end", "",
        "complete -c fuservice -f",
    ]  # fmt: skip
    for command in commands:
        lines.append(
            f"complete -c fuservice -n __fish_use_subcommand -a {command.name} -d {_fish_quoted(command.about)}"
        )
    for command in commands:
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"complete -c fuservice {seen}{_fish_value(command.words)}"] if command.words else []
        for action in command.options:
            names = "".join(
                f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in action.option_strings
            )
            takes = f" -r{_fish_value(value(action))}" if takes_value(action) else ""
            lines.append(f"complete -c fuservice {seen}{names}{takes} -d {_fish_quoted(_plain(action.help))}")
    return "\n".join([*lines, ""])


def _fish_value(offer: str) -> str:
    kinds = {
        FILES: " -F",
        DIRECTORIES: " -a '(__fish_complete_directories)'",
        MOUNTS: " -F -a '(__fuservice_mounts)'",
        "": "",
    }
    return kinds.get(offer, f" -a '{offer}'")


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[list[Command]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
