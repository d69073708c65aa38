"""The pages say what is there: links, anchors, paths, commands and targets that exist."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer

from flows.cli.app import app
from tests.imports import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose_of(page: Path) -> str:
    """A page without its indented code."""
    return "\n".join(line for line in page.read_text().split("\n") if not line.startswith("    "))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[`*]", "", heading.strip()).lower() for heading in headings]
    kept = ["".join(c for c in text if c.isalnum() or c in " -_") for text in plain]
    return {text.replace(" ", "-") for text in kept}


@every_page
def test_links_and_anchors_resolve(page: Path) -> None:
    prose = prose_of(page)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


@every_page
def test_paths_that_are_named_exist(page: Path) -> None:
    floors = "mammo|stages|flows|tests|benchmarks|recipes|docs"
    named = re.findall(rf"`((?:{floors})/[\w/.-]+)`", page.read_text())
    missing = [path for path in named if "NAME" not in path and not (ROOT / path).exists()]
    assert missing == []


@every_page
def test_targets_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    typed = r"`make ([a-z]+)|^ {4}(?:\S*\$ )?(?:[A-Z_]+=\S+ )*make ([a-z]+)|&& make ([a-z]+)"
    targets = {"".join(found) for found in re.findall(typed, text, re.MULTILINE)}
    assert targets <= TARGETS
    modules = set(re.findall(r"python(?:3\.\d+)? -m ([a-z_.]+[a-z_])", text)) - {"stages"}
    assert {name for name in modules if importlib.util.find_spec(name) is None} == set()


def unknown_in(words: list[str]) -> list[str]:
    """Commands and options in what is typed after `mammoflow` that the command line lacks."""
    command = typer.main.get_command(app)
    unknown, known = [], set[str]()
    for at, word in enumerate(words):
        known |= {name for option in command.params for name in (*option.opts, "--help")}
        known |= {name for option in command.params for name in option.secondary_opts}
        subcommands = getattr(command, "commands", {})
        if word in subcommands:
            command = subcommands[word]
        elif word.startswith("--"):
            unknown += [word] * (word not in known)
        elif subcommands and word.isalpha() and word.islower() and words[at - 1] != "--model":
            unknown.append(word)
    return unknown


@every_page
def test_commands_and_options_that_are_typed_exist(page: Path) -> None:
    lines = re.findall(r"^ {4}(?:\S*\$ )?mammoflow ([^#\n;&|]*)", page.read_text(), re.MULTILINE)
    lines += re.findall(r"`mammoflow ([^`\n]*)`", page.read_text())
    assert {line: unknown_in(line.split()) for line in lines if unknown_in(line.split())} == {}


def test_a_command_or_an_option_that_does_not_exist_is_found() -> None:
    assert unknown_in(["audit", "3", "--quick"]) == []
    assert unknown_in(["audits", "3", "--slow"]) == ["--slow"]
    assert unknown_in(["judge", "3"]) == ["judge"]


def test_each_page_and_picture_is_linked() -> None:
    text = "".join(page.read_text() for page in PAGES)
    files = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.png"), *ROOT.glob("docs/*.svg")]
    assert [
        file.name
        for file in files
        if f"{file.name})" not in text.replace("#", ")") and f'{file.name}"' not in text
    ] == []
