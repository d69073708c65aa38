"""The documents of a version: every section, each figure with its source, and nothing of anybody.

Two versions of a project of git, DVC's cache and MLflow; nothing is trained, and what their outs
hold was measured on made-up women. The records are full of what may not be told.
"""

import json
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from sklearn.metrics import precision_recall_curve, roc_curve

from flows.documents.change_plan import NONE, read_change_plan
from flows.documents.facts import Facts, gather
from flows.documents.keep import (
    keep_documents,
    make_documents,
    try_to_keep_documents,
    write_documents,
)
from flows.documents.passages import ASKED, FILE
from flows.documents.render import TITLES, Papers, make_page, write_papers
from flows.evidence.export import export, verify_version
from flows.evidence.keys import FILE as KEY_FILE
from flows.evidence.keys import FOLDER, PASSPHRASE, make_key
from flows.evidence.signing import describe_materials
from flows.evidence.verify import verify
from flows.processes.run_git import git
from flows.snapshots.snapshot import Snapshot
from flows.tracking import aliases
from flows.tracking.names import MODEL
from flows.tracking.registry import get_version, read_folder
from mammo.base.errors import UserError
from mammo.base.settings import load_params
from mammo.evaluation.metrics import evaluate
from tests.flows.documents.test_change_plan import PLAN
from tests.support.judged import women
from tests.support.signed_project import LOCK, make_repository, register, renew_manifest
from tests.support.small_project import store
from tests.support.tampering import put_into_cache

SECRET = "Zorgla Quendel"
ANNEX_IV = (
    "1. General description of the AI system",
    "2. Elements of the AI system and process of its development",
    "3. Monitoring, functioning and control",
    "4. Appropriateness of the performance metrics",
    "5. Risk management system",
    "6. Changes through the lifecycle",
    "7. Harmonised standards and other specifications",
    "8. EU declaration of conformity",
    "9. Performance after placing on the market",
)


def measure(breasts: pd.DataFrame, root: Path) -> dict[str, object]:
    params = load_params(root / "params.yaml")
    found = asdict(evaluate(breasts, 0.5, params.evaluate, 1))
    scores = found.pop("scores")
    return {"threshold": {"breast": 0.5}, "test": {"breast": {**found, **scores}}}


def write_outs(root: Path) -> None:
    """What stages leave in DVC's cache, and a dvc.lock that names it."""
    breasts = women(30, seed=1).drop(columns="density").assign(split="test")
    images = breasts.assign(image_id="1", age=50.0, implant=0, density="A", machine_id="29")
    rates = roc_curve(breasts["target"], breasts["probability"])
    precision, recall, limits = precision_recall_curve(breasts["target"], breasts["probability"])
    split = {"women": 30, "positive_women": 10, "breasts": 60, "positive_breasts": 10}
    tables = {
        "outputs/evaluate/breasts.csv": breasts,
        "outputs/preprocess/manifest.csv": images,
        "outputs/evaluate/roc.csv": pd.DataFrame(
            dict(zip(("fpr", "tpr", "threshold"), rates, strict=True))
        ),
        "outputs/evaluate/precision_recall.csv": pd.DataFrame(
            {"recall": recall, "precision": precision, "threshold": [*limits, None]}
        ),
    }
    numbers: dict[str, object] = {
        "outputs/evaluate/metrics.json": measure(breasts, root),
        "outputs/split/metrics.json": {"evaluate": {"test": split}},
    }
    texts = {path: table.to_csv(index=False) for path, table in tables.items()}
    texts |= {path: json.dumps(content) for path, content in numbers.items()}
    lock = json.loads(json.dumps(LOCK))
    for path, text in texts.items():
        stage = lock["stages"].setdefault(path.split("/")[1], {"cmd": "x", "outs": []})
        stage["outs"].append({"path": path, "md5": put_into_cache(root, text.encode())})
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))


def record_gate(root: Path, number: int) -> None:
    """A verdict as the gate records it, in a sentence that names a woman, and a path."""
    client, version = MlflowClient(), get_version(number)
    then = None if number == 1 else 0.8
    floor: dict[str, object] = {
        "check": "sensitivity_at_90_specificity",
        "group": None,
        "champion": then,
    }
    rows = [{**floor, "challenger": 0.7, "bound": None, "limit": 0.4}]
    if number == 2:
        area: dict[str, object] = {"check": "auroc", "champion": 0.81, "challenger": 0.82}
        rows.append({**area, "group": None, "bound": -0.01, "limit": -0.05})
        rows.append({**area, "group": "age 50 to 59", "bound": None, "limit": 0.2})
    table = pd.DataFrame(rows).assign(passed=True, breasts=60, positives=10, sentence=SECRET)
    client.log_table(str(version.run_id), table, "gates/2026-11-27T100000/decision.json")
    for name, value in {
        "gate_date": "2026-11-27T10:00:00+00:00",
        "gate_sentence": f"w0001 ({SECRET}) was seen in {root}",
        "gate_against": "none" if number == 1 else "1",
        "gate_verdict": "promote",
    }.items():
        client.set_model_version_tag(MODEL, str(number), name, value)


def record_audit(root: Path, number: int) -> None:
    said = {
        "date": "2026-11-28T10:00:00+00:00",
        "who": "Anna Tester <anna@localhost>",
        "where": socket.gethostname(),
        "environment": "Python 3.11, a processor, no GPU, Linux",
        "quick": False,
        "verdict": "reproduced bit for bit",
        "standard": "bit for bit",
        "snapshot_digest": "0" * 64,
        "report": f"{root}/audits/x",
        "report_digest": "f" * 64,
    }
    MlflowClient().set_model_version_tag(MODEL, str(number), "audit.x", json.dumps(said))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions: the second one has another setting, and a person approved it."""
    root = tmp_path_factory.mktemp("documents") / "project"
    make_repository(root)
    params = (root / "params.yaml").read_text().replace("bootstrap: 1000", "bootstrap: 100")
    (root / "params.yaml").write_text(params)
    write_outs(root)
    git(root, "add", "-A")
    git(root, "commit", "-qm", f"outs, by {SECRET}")
    register(root, "first")
    record_gate(root, 1)
    aliases.make_champion(1, aliases.AUTOMATIC, "the gate: good")
    (root / "params.yaml").write_text(params.replace("seed: 20", "seed: 21"))
    register(root, "second")
    describe_materials(root, get_version(2))
    record_gate(root, 2)
    record_audit(root, 2)
    aliases.make_champion(2, "Anna Tester <anna@localhost>", f"{SECRET} agreed")
    return root


@pytest.fixture(scope="module")
def facts(project: Path) -> Facts:
    return gather(project, get_version(2))


@pytest.fixture(scope="module")
def papers(facts: Facts) -> Papers:
    return write_papers(facts)


@pytest.fixture
def root(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project, with a builder's key."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "private"))
    for name in (KEY_FILE, PASSPHRASE):
        monkeypatch.delenv(name, raising=False)
    root = Path(shutil.copytree(project, tmp_path / "project"))
    store(root)
    make_key(root, "server", "builder", None)
    yield root
    store(project)


def headings(text: str, level: int = 2) -> list[str]:
    return re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)


def test_the_model_card_has_its_sections(papers: Papers) -> None:
    assert headings(papers.files["model-card.md"]) == [
        "Model details",
        "Intended use",
        "Data",
        "Training and tuning",
        "Internal testing",
        "External testing",
        "Decisions",
        "Audits and signatures",
        "Limits",
        "Sources",
    ]
    assert "Reference standard" in headings(papers.files["model-card.md"], 3)


def test_a_score_that_no_stage_measures_has_no_row(papers: Papers) -> None:
    for text in papers.files.values():
        assert "that were not read | not recorded" not in text


def test_the_technical_documentation_has_the_nine_sections_of_annex_iv(papers: Papers) -> None:
    text = papers.files["technical-documentation.md"]
    assert headings(text) == [*ANNEX_IV, "Sources"]
    for letter in "abcdefgh":
        assert f"({letter}) " in text.partition("## 2.")[2]


def test_the_change_control_plan_has_the_three_parts_and_the_four_of_its_protocol(
    papers: Papers,
) -> None:
    text = papers.files["change-control-plan.md"]
    assert headings(text)[:3] == [
        "1. Description of modifications",
        "2. Modification protocol",
        "3. Impact assessment",
    ]
    protocol = text.partition("## 2. ")[2].partition("\n## 3. ")[0]
    assert headings(protocol, 3) == [
        "Data management",
        "Re-training",
        "Performance evaluation",
        "Update procedures",
    ]


def test_figures_are_those_of_the_records_and_name_their_source(
    facts: Facts, papers: Papers
) -> None:
    found = facts.score("auroc")
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    text = papers.files["model-card.md"]
    row = f"| auROC | {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) |"
    assert row in text
    after = text.partition(row)[2]
    number = re.search(r"Source: \[(S\d+)\]", after)
    assert number is not None
    digest = facts.sources["evaluate metrics"].digest
    assert f"| {number[1]} | outputs/evaluate/metrics.json | `{digest}` | DVC's cache |" in text
    assert "| internal testing | 30 | 10 | 60 | 10 |" in text
    assert "reproduced bit for bit" in text
    assert "| `seed` | `21` |" in papers.files["technical-documentation.md"]


@pytest.mark.parametrize("name", TITLES)
def test_every_source_that_is_named_stands_in_the_list_with_its_digest(
    papers: Papers, name: str
) -> None:
    body, _, sources = papers.files[f"{name}.md"].partition("## Sources")
    used = set(re.findall(r"\[(S\d+)\]\(#sources\)", body))
    rows = re.findall(r"^\| (S\d+) \| [^|]+ \| (`\w+:[0-9a-f.dir]+`|it has none) \|", sources, re.M)
    assert used == {number for number, _ in rows}
    assert len(rows) >= 8


def test_what_changed_since_the_version_before_is_named(papers: Papers) -> None:
    for name in ("technical-documentation", "change-control-plan"):
        assert "settings: `seed` was `20` and is `21`" in papers.files[f"{name}.md"]
        assert "data: the same" in papers.files[f"{name}.md"]


def test_conditions_of_the_gate_stand_with_their_numbers(papers: Papers) -> None:
    text = papers.files["change-control-plan.md"]
    assert "| auROC | champion | 0.810 | 0.820 | -0.010 | -0.050 | 60 (10) | passed |" in text
    row = (
        r"^\| auROC, age 50 to 59 \| champion \| 0\.810 \| 0\.820 \| . \| \+0\.200 \| 60 \(10\) \|"
    )
    assert re.search(row, text, re.MULTILINE)
    assert "became champion, by a person" in papers.files["model-card.md"]


def test_no_document_names_a_woman_a_person_or_a_place_of_a_machine(
    project: Path, papers: Papers
) -> None:
    assert SECRET in get_version(2).tags["gate_sentence"]
    forbidden = [
        SECRET,
        "Zorgla",
        "Anna",
        "anna@",
        str(project),
        str(project.parent),
        str(Path.home()),
    ]
    for name, text in papers.files.items():
        assert [word for word in forbidden if word in text] == [], name
        assert re.findall(r"\bw\d{4}\b", text) == [], name
        assert re.findall(r"(?<![\w.])/(?:home|tmp|root|usr|work|var)/", text) == [], name
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text), name
        assert "PRIVATE KEY" not in text


def test_the_same_version_gives_the_same_bytes(project: Path, papers: Papers) -> None:
    assert make_documents(project, get_version(2)) == papers


class Page(HTMLParser):
    """What a page would fetch, and which of its links lead nowhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.targets: set[str] = set()
        self.links: set[str] = set()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.targets |= {said["id"]} if "id" in said else set()
        self.fetched += [value for name, value in said.items() if name in ("src", "srcset")]
        self.fetched += [said["href"]] if tag in ("link", "image") else []
        if tag == "a" and said.get("href", "").startswith("#"):
            self.links.add(said["href"][1:])


@pytest.mark.parametrize("name", TITLES)
def test_a_page_needs_nothing_beside_it(papers: Papers, name: str) -> None:
    page = Page(papers.files[f"{name}.html"])
    assert page.fetched == []
    assert "script" not in page.tags
    assert page.links <= page.targets
    assert "sources" in page.links
    pictures = {"model-card": 3, "technical-documentation": 3, "change-control-plan": 0}
    assert page.tags.count("svg") == pictures[name]
    for heading in headings(papers.files[f"{name}.md"]):
        assert heading in papers.files[f"{name}.html"]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(papers: Papers) -> None:
    """Each row of a table in Markdown has a cell in HTML, so none was taken for a paragraph."""
    for name in TITLES:
        text, page = papers.files[f"{name}.md"], papers.files[f"{name}.html"]
        rows = [line for line in text.splitlines() if line.startswith("|")]
        rules = [row for row in rows if set(row) <= set("|-: ") and "-" in row]
        assert page.count("<tr>") == len(rows) - len(rules)


def test_html_in_a_text_is_shown_and_not_taken_as_such() -> None:
    page = make_page("# A\n\n<script>x</script> ![b](https://elsewhere/b.svg)\n", {})
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "elsewhere" not in page


def test_passages_that_are_not_written_are_marked_and_counted(papers: Papers) -> None:
    for name, number in papers.to_be_written.items():
        text = papers.files[f"{name}.md"]
        marked = set(
            re.findall(r"^> \*\*To be written by the provider\*\* \(`(\w+)`\)", text, re.M)
        )
        assert len(marked) == number > 0
        assert f"> **{number} passages are to be written by the provider:**" in text
    assert papers.to_be_written["technical-documentation"] == 18


def test_the_providers_passages_are_taken_in_and_no_longer_counted(
    facts: Facts, papers: Papers
) -> None:
    written = write_papers(replace(facts, passages={"risk_management": "Hazards: *none* <known>."}))
    text = written.files["technical-documentation.md"]
    assert "Hazards: *none* <known>." in text.partition("## 5. ")[2].partition("## 6. ")[0]
    before = papers.to_be_written["technical-documentation"]
    assert written.to_be_written["technical-documentation"] == before - 1
    assert "<em>none</em> &lt;known&gt;" in written.files["technical-documentation.html"]
    everything = write_papers(replace(facts, passages=dict.fromkeys(ASKED, "Said.")))
    assert set(everything.to_be_written.values()) == {0}
    for name in TITLES:
        assert (
            "Every passage that the provider has to write is there."
            in (everything.files[f"{name}.md"])
        )
        assert "To be written by the provider" not in everything.files[f"{name}.md"]


def test_a_version_of_which_nothing_is_recorded_gets_documents_that_say_so(facts: Facts) -> None:
    bare = replace(
        facts,
        snapshot=None,
        commit=None,
        settings={},
        data=None,
        stages=(),
        numbers={},
        groups=(),
        calibration=(),
        pictures={},
        gate=None,
        moves=(),
        audits=(),
        environment=None,
        packages=(),
        weights=(),
        plan=NONE,
        changes=None,
        sources={},
        missing=("snapshot.json", "environment.json"),
    )
    papers = write_papers(bare)
    assert not any(name.endswith(".svg") for name in papers.files)
    for name in TITLES:
        text = papers.files[f"{name}.md"]
        assert "**Not recorded of this version:** snapshot.json; environment.json." in text
        assert "None" not in re.sub(r"[`|]", " ", text).split()
    card = papers.files["model-card.md"]
    assert "The results of internal testing are not recorded." in card
    assert "No audit of this version is recorded." in card


def test_facts_that_are_missing_are_named(project: Path, tmp_path: Path) -> None:
    """A clone without the outs, and a version without a bill of materials or an environment."""
    clone = Path(shutil.copytree(project, tmp_path / "project"))
    shutil.rmtree(clone / ".dvc" / "cache")
    try:
        store(clone)
        client, run = MlflowClient(), str(get_version(2).run_id)
        client.log_metric(run, "evaluate/test.breast.auroc.value", 0.7)
        for name in ("bom.cdx.json", "environment.json"):
            (clone / "mlruns" / "artifacts" / run / "artifacts" / name).unlink()
        client.delete_model_version_tag(MODEL, "2", "gate_verdict")
        found = gather(clone, get_version(2))
    finally:
        store(project)
    missing = "; ".join(found.missing)
    for word in ("metrics of the stage split", "curves", "bom.cdx.json", "environment.json"):
        assert word in missing
    assert "a verdict of the gate" in missing
    assert found.sources["evaluate metrics"].digest is None
    card = write_papers(found).files["model-card.md"]
    assert "| auROC | 0.700 |" in card
    assert "numpy" in [package.name for package in found.packages]


def test_a_record_that_somebody_changed_is_said(root: Path) -> None:
    MlflowClient().set_model_version_tag(MODEL, "2", "gate_look", "look 2")
    with pytest.raises(UserError, match="the tag gate_look of the version in MLflow is no JSON"):
        gather(root, get_version(2))


def test_the_plan_of_a_version_is_its_change_control_plan(facts: Facts) -> None:
    snapshot = Snapshot("0" * 40, {"plan.yaml": yaml.safe_dump(PLAN)})
    text = write_papers(replace(facts, plan=read_change_plan(snapshot))).files[
        "change-control-plan.md"
    ]
    assert "| setting `classifier.learning_rate` | from 0.0001 to 0.001 |" in text
    assert "| data | data may be added; every image and label that was there stays |" in text
    assert "| code | `mammo/classifier`, `requirements.lock` |" in text
    assert "looked at 10 times, with an error of 0.25 over all looks" in text
    assert "the first version approved under a plan, so that a row of small losses ends" in text


def test_documents_are_kept_with_the_version_and_signed(root: Path, tmp_path: Path) -> None:
    version = get_version(2)
    papers = keep_documents(root, version)
    assert read_folder(str(version.run_id), "documents") == papers.files
    keep_documents(root, version)  # signs nothing anew, since nothing is new
    export(root, version, tmp_path / "export")
    report = verify(tmp_path / "export")
    assert [line.split("  ")[2].split(", by ")[0] for line in map(str.strip, report.lines)] == [
        "documents of version 2"
    ]
    assert report.wrong == []
    card = tmp_path / "export" / "documents" / "model-card.md"
    card.write_text(card.read_text() + "Good.\n")
    renew_manifest(tmp_path / "export")
    assert verify(tmp_path / "export").wrong == [
        "the documents have other bytes than line 1 (documents of version 2) names: model-card.md"
    ]


def test_signed_documents_are_renewed_by_who_can_sign_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = get_version(2)
    keep_documents(root, version)
    (root / FILE).parent.mkdir()
    (root / FILE).write_text("provider: A clinic\n")
    with monkeypatch.context() as patch:
        patch.setenv(FOLDER, str(root / "nowhere"))
        with pytest.raises(UserError, match=r"line 1 \(documents of version 2\) would no longer"):
            keep_documents(root, version)
        fault = try_to_keep_documents(root, version)  # as a retrain does
        assert fault is not None
        assert fault.startswith("the documents of version 2 are not written: line 1 (documents of")
    assert verify_version(root, version, ()).wrong == []
    assert try_to_keep_documents(root, version) is None
    papers = keep_documents(root, version)
    assert "A clinic" in papers.files["model-card.md"]
    assert verify_version(root, version, ()).wrong == []
    shutil.rmtree(root / ".dvc" / "cache")
    with pytest.raises(UserError, match=r"would lose calibration\.svg, precision-recall\.svg, roc"):
        keep_documents(root, version)


def test_they_are_written_into_a_new_folder_only(papers: Papers, tmp_path: Path) -> None:
    write_documents(papers, tmp_path / "papers")
    assert {x.name for x in (tmp_path / "papers").iterdir()} == set(papers.files)
    with pytest.raises(UserError, match="there is something in it already"):
        write_documents(papers, tmp_path / "papers")


def test_an_export_has_documents_of_a_version_that_kept_none(root: Path, tmp_path: Path) -> None:
    version = get_version(1)
    export(root, version, tmp_path / "export", make_documents(root, version).files)
    assert (tmp_path / "export" / "documents" / "model-card.html").is_file()
    assert "nobody signed the documents of version 1" in verify(tmp_path / "export").notes
