"""The documents as Markdown and as HTML: templates are filled with facts, and no clock is asked.

Each figure is followed by the number of its source, and the sources stand at the end with their
digests. A passage that only the provider can write is asked for where it belongs, and counted at
the top. HTML is made from the Markdown; it needs nothing beside it and prints on A4.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from flows.documents.facts import Facts, ScoreWithInterval, Source
from flows.documents.passages import ASKED
from flows.processes.words import put_in_one_line
from flows.tracking.runs import flatten

TEMPLATES = Path(__file__).parent

TITLES: Mapping[str, str] = {
    "model-card": "Model card",
    "technical-documentation": "Technical documentation",
    "change-control-plan": "Predetermined change control plan",
}
"""The documents, by the names of their files."""

_NONE = "–"  # noqa: RUF001
_PICTURE = re.compile(r"([a-z-]+)\.svg")


@dataclass(frozen=True)
class Papers:
    """The documents as files, and how many passages of each are to be written by the provider."""

    files: Mapping[str, str]  # text by name
    to_be_written: Mapping[str, int]  # by the name of a document


@dataclass
class _Draft:
    """What is noted while a template is filled."""

    facts: Facts
    cited: list[Source] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def cite(self, *keys: str) -> str:
        """As `list_sources`, in brackets."""
        links = self.list_sources(*keys)
        return f"({links})" if links else ""

    def list_sources(self, *keys: str) -> str:
        """The numbers of sources, as links to their list; nothing for what is not recorded."""
        numbers = []
        for key in keys:
            source = self.facts.sources.get(key)
            if source is None:
                continue
            if source not in self.cited:
                self.cited.append(source)
            numbers.append(self.cited.index(source) + 1)
        return ", ".join(f"[S{number}](#sources)" for number in dict.fromkeys(numbers))

    def provider(self, key: str) -> str:
        """A passage of the provider, or, if there is none, what is to be written."""
        question = ASKED[key]
        if key in self.facts.passages:
            return (
                f"{self.facts.passages[key]}\n\n*Written by the provider* {self.cite('provider')}"
            )
        self.asked.append(key)
        return f"> **To be written by the provider** (`{key}`): {question}."


def write_papers(facts: Facts) -> Papers:
    """Every document of a version; the same facts give the same bytes."""
    files: dict[str, str] = {}
    to_be_written = {}
    for name in TITLES:
        text, number = _write(name, facts)
        files[f"{name}.md"] = text
        files[f"{name}.html"] = make_page(text, facts.pictures)
        to_be_written[name] = number
    for name, picture in facts.pictures.items():
        files[f"{name}.svg"] = _complete_svg(picture)
    return Papers(files, to_be_written)


def _write(name: str, facts: Facts) -> tuple[str, int]:
    """A document as Markdown, and the number of passages to be written by the provider."""
    draft, engine = _Draft(facts), _make_engine()
    given: dict[str, Any] = {
        "facts": facts,
        "settings": _list_settings(facts),
        "cite": draft.cite,
        "sources": draft.list_sources,
        "provider": draft.provider,
    }
    body = engine.get_template(f"{name}.md.j2").render(given)
    frame = engine.get_template("frame.md.j2").render(
        facts=facts,
        title=TITLES[name],
        body=body.strip(),
        asked=list(dict.fromkeys(draft.asked)),
        cited=draft.cited,
    )
    text = re.sub(r"\n{3,}", "\n\n", frame).strip() + "\n"
    return re.sub(r"[ \t]+\n", "\n", text), len(dict.fromkeys(draft.asked))


@functools.cache
def _make_engine() -> jinja2.Environment:
    """What fills the templates."""
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        # Not Markdown: the way from that to HTML lets no HTML of a text through.
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    engine.filters |= {
        "text": escape,
        "number": format_number,
        "estimate": format_estimate,
        "whole": format_whole,
        "code": lambda value: f"`{str(value).replace('`', '')}`",
    }
    return engine


def _list_settings(facts: Facts) -> dict[str, str]:
    """The settings that make a model, by their dotted names, as they are written in params.yaml."""
    used = {name: x for name, x in facts.settings.items() if name not in ("audit", "policy")}
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in flatten(used).items()
    }


def make_page(text: str, pictures: Mapping[str, str]) -> str:
    """Markdown as one page of HTML with its pictures inside.

    Args:
        text: HTML in it is shown and not taken as such.
        pictures: SVG elements by name; an image of another name becomes its text.
    """

    def picture(
        _self: RendererHTML, tokens: Sequence[Token], at: int, _options: OptionsDict, _env: EnvType
    ) -> str:
        name = _PICTURE.fullmatch(str(tokens[at].attrs.get("src", "")))
        caption = Markup.escape(tokens[at].content)
        if name is None or name[1] not in pictures:
            return str(caption)
        return f'<span class="figure">{pictures[name[1]]}<span>{caption}</span></span>'

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", picture)
    tokens = parser.parse(text)
    contents = []
    for opening, inside in pairwise(tokens):
        if opening.type == "heading_open":
            anchor = re.sub(r"[^a-z0-9]+", "-", inside.content.lower()).strip("-")
            opening.attrSet("id", anchor)
            if opening.tag == "h2":
                contents.append((anchor, inside.content))
    head, end, body = parser.renderer.render(tokens, parser.options, {}).partition("</h1>")
    return (
        _make_engine()
        .get_template("page.html.j2")
        .render(
            title=tokens[1].content,
            contents=contents,
            head=Markup(head + end),  # noqa: S704  (markdown-it's own, without the text's HTML)
            body=Markup(body),  # noqa: S704
        )
    )


def escape(value: object) -> str:
    """A value as text in Markdown, in one line."""
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", put_in_one_line(value))


def format_number(value: float | None, sign: str = "") -> str:
    """A score with three decimals; a dash for none."""
    return _NONE if value is None else f"{value:{sign}.3f}"


def format_estimate(found: ScoreWithInterval | None) -> str:
    """A score with its interval."""
    if found is None:
        return "not recorded"
    if found.low is None or found.high is None:
        return format_number(found.value)
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def format_whole(value: Any) -> str:
    """A count, thousands apart; a dash for none."""
    return _NONE if value is None else f"{int(value):,}"


def _complete_svg(picture: str) -> str:
    """An SVG element as a file of its own, which needs its namespaces."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return picture.replace("<svg", f"<svg {spaces}", 1)
