"""The project around the source: metadata, README, news, man pages, and words that belong on no machine but one."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from fuservice.cli import completion
from fuservice.cli.main import COMMANDS
from tests.house.source import tracked
from tests.support.capabilities import PROGRAMS, REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
MAN_PAGES = sorted((REPOSITORY / "docs/man").glob("*.[1-9]"))

#: Paths of single machines, spelt so that this file does not hold them.
PRIVATE_WORDS = [f"/{name}/" for name in ("work", "root")]
NEWS_KINDS = ("feature", "bugfix", "security", "removal", "docs")


def test_the_core_has_no_runtime_dependency() -> None:
    assert PROJECT["project"]["dependencies"] == []


def programs() -> set[str]:
    """Return the names of the programs that the project installs."""
    scripts = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"]
    return set(PROJECT["project"]["scripts"]) | set(scripts.values())


def test_what_the_readme_types_exists() -> None:
    commands = re.findall(
        r"^    (?:# |\$ |sudo )*(\S+)(?: (\S+))?", (REPOSITORY / "README.md").read_text(), re.MULTILINE
    )
    made = {argument for command, argument in commands if command == "make"}
    assert made >= {"demo", "test"}
    assert made <= TARGETS
    typed = {Path(command).name for command, _ in commands if Path(command).name.startswith("fuservice")}
    assert typed <= programs()


def test_every_command_of_the_makefile_explains_itself() -> None:
    explained = set(re.findall(r"^([a-z]+):.*## \S", MAKEFILE, re.MULTILINE))
    assert explained >= {"demo", "test", "bench", "lint", "setup", "dev", "clean", "help"}


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "fuservice.bash"), ("zsh", "_fuservice"), ("fish", "fuservice.fish")]
)
def test_what_shells_complete_is_what_the_parser_says(shell: str, name: str) -> None:
    wanted = completion.script(shell)
    assert (REPOSITORY / "completions" / name).read_text() == wanted, (
        f"fuservice completion {shell} >completions/{name}"
    )
    assert all(command in wanted for command in COMMANDS)


def test_ci_runs_the_test_command() -> None:
    script = REPOSITORY / ".ci/run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "make test" in script.read_text() and "make lint" in script.read_text()


def test_nothing_is_setuid() -> None:
    special = [str(p) for p in tracked() if p.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not special
    for path in [p for p in tracked() if p.name in {"Makefile", "pyproject.toml"} or "scripts" in p.parts]:
        text = path.read_text()
        assert not re.search(r"\bu\+s\b|chmod\s+0?[2-7][0-7]{3}\b|install\s.*-m\s*0?[4-7][0-7]{3}\b|setcap\b", text), (
            path
        )


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(REPOSITORY)}: {word}" for word in PRIVATE_WORDS if word in text]
    assert not found


def test_news_are_named_after_an_issue_and_a_kind() -> None:
    """``news/2.feature.md``, or ``news/2.feature.some-words.md`` where an issue makes several; one to five lines."""
    for path in (REPOSITORY / "news").iterdir():
        if path.name.startswith("."):
            continue
        assert re.fullmatch(rf"\d+\.({'|'.join(NEWS_KINDS)})(\.[a-z0-9-]+)?\.md", path.name), path.name
        text = path.read_text().strip()
        assert text.endswith(".") and 1 <= text.count("\n") + 1 <= 5, path.name


def said_by_help(page: Path) -> str:
    """Return what the program that *page* describes prints for --help. ``fuservice-listen`` is ``fuservice listen``."""
    name = page.stem
    command = [name] if name in programs() else name.split("-", 1)
    start: list[str | Path] = [PROGRAMS / command[0]]
    if where := PROJECT["project"]["scripts"].get(command[0]):
        module, _, function = where.partition(":")  # the entry point itself: it may be newer than the installation
        start = [PROGRAMS / "python3", "-c", f"import sys; from {module} import {function}; sys.exit({function}())"]
    done = subprocess.run([*start, *command[1:], "--help"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def options_in(text: str) -> set[str]:
    """Return the long and short options that *text* names."""
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*[a-z]|-[a-zA-Z])(?![\w-])", text))


@pytest.mark.needs("installed")
def test_the_interpreter_can_be_run_by_any_uid() -> None:
    """Servers have a uid of their own. Where the checkout lies is its owner's choice; where Python lies is ours."""
    interpreter = (PROGRAMS / "python3").resolve()
    shut = [str(path) for path in interpreter.parents if not path.stat().st_mode & stat.S_IXOTH]
    assert not shut, "make .venv with the system's Python (make clean setup)"


@pytest.mark.needs("installed")
@pytest.mark.parametrize("page", [p for p in MAN_PAGES if p.suffix in {".1", ".8"}], ids=lambda p: p.name)
def test_every_option_is_in_the_man_page_and_the_other_way_round(page: Path) -> None:
    documented = options_in(page.read_text().replace("\\-", "-").replace("\\fB", "").replace("\\fR", ""))
    typed = options_in(said_by_help(page))
    assert typed, f"{page.stem} --help names no option"
    assert typed <= documented | {"-h"}, f"{page.name} does not say {sorted(typed - documented)}"


@pytest.mark.skipif(shutil.which("man") is None or shutil.which("groff") is None, reason="no man to read them with")
@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda p: p.name)
def test_man_pages_are_set_without_a_warning(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings=all", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
