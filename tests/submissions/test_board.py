"""The board: what is ranked and what is not, and that it is safe in every form."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import html5lib
import pytest

from flowertune.base.errors import UserError
from submissions import layout, tiers
from submissions.board import card, prose, tables
from submissions.board.cli import main
from submissions.board.entry import Entry
from submissions.board.figures import cost_axis, scatter
from submissions.board.pages import commands, hours, took
from submissions.board.ranking import boards, frontier, ranked
from submissions.board.reading import read
from submissions.board.site import write_site
from submissions.board.standing import read_reports
from submissions.findings import Finding, Report
from submissions.formats.card import TO_FILL_IN
from submissions.signing import signature
from submissions.signing.keys import new_key, private_key
from submissions.signing.signature import sign_object
from submissions.verify.check import verify
from tests.submissions.bundles import TEAM, bundle, packed, scored, submitted, unpacked
from tests.submissions.entries import HOSTILE, METHOD, entries, entry, hostile, refused
from tests.submissions.on_record import on_record
from tests.templates import ROOT


@pytest.fixture(scope="module", autouse=True)
def _published() -> Iterator[None]:
    with on_record():
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of entries that are hostile in every text, among others."""
    folder = tmp_path_factory.mktemp("board") / "site"
    many = entries(12) + [hostile(1000 + n, text) for n, text in enumerate(HOSTILE)]
    write_site(folder, "Board & Co.", many, [refused(text) for text in HOSTILE])
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a VALID bundle, the same once more, a changed one, and no bundle."""
    folder = tmp_path_factory.mktemp("real")
    changed = unpacked(folder / "changed")
    results = json.loads((changed / layout.SCORES).read_text())
    results["sets"]["fpb"]["scores"]["checkpoint"]["score"] = "100.00"
    (changed / layout.SCORES).write_text(json.dumps(results))
    packed(changed, folder / "changed.zip")
    (folder / "empty.zip").write_bytes(b"")
    given = [bundle(), bundle(), folder / "changed.zip", folder / "empty.zip"]
    assert main([*map(str, given), "-o", str(folder / "site")]) == 0
    return folder / "site"


def all_pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


# Bundles


def test_a_valid_bundle_is_ranked_and_shown(real: Path) -> None:
    body = json.loads((real / "board.json").read_text("utf-8"))
    (board,) = body["boards"]
    ours, reference = sorted(board["rows"], key=lambda row: row["reference"])
    assert (ours["rank"], ours["team"], ours["tier"]) == (1, TEAM, "consistent")
    assert (reference["rank"], reference["average"]) == (None, "45.27")
    with on_record():
        facts = verify(bundle()).facts
    assert ours["average"] == facts["average"]["score"]
    assert {name: one["score"] for name, one in ours["scores"].items()} == {
        name: one["score"] for name, one in facts["scores"].items()
    }
    assert (ours["mib"], ours["parameters"]) == (facts["mib"], facts["parameters"])
    page = (real / "submissions" / f"{ours['id']}.html").read_text("utf-8")
    for text in (
        TEAM,
        ours["digest"],
        ours["average"],
        "Difference from the template",
        "loss-title",
        "The participant says nothing about it",
        "evaluation.replay bundle.zip",
    ):
        assert text in page, text
    whole = json.loads((real / "submissions" / f"{ours['id']}.json").read_text("utf-8"))
    assert len(whole["loss"]) == 3
    found = {(one["check"], one["sentence"]) for one in whole["findings"]}
    # changed.zip has the same adapter; the bundle itself, given twice, counts once.
    assert {check for check, _ in found} == {"unverified", "same-adapter"}
    assert not [sentence for _, sentence in found if "bundle.zip" in sentence]


def test_an_invalid_bundle_is_listed_apart_with_why(real: Path) -> None:
    body = json.loads((real / "board.json").read_text("utf-8"))
    assert sorted(one["bundle"] for one in body["refused"]) == ["changed.zip", "empty.zip"]
    assert all(any(f["level"] == "error" for f in one["findings"]) for one in body["refused"])
    assert "100.00" not in (real / "board.csv").read_text("utf-8")
    assert "changed.zip" not in (real / "index.html").read_text("utf-8")
    assert "changed.zip" in (real / "refused.html").read_text("utf-8")
    assert "changed.zip" in (real / "refused.csv").read_text("utf-8")


def test_a_contact_is_not_published(real: Path) -> None:
    assert not [p for p in real.rglob("*") if p.is_file() and b"team@example.org" in p.read_bytes()]


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.md").write_text("mine")
    with pytest.raises(UserError, match="holds something else than a board"):
        write_site(tmp_path, "Board", [], [])
    assert (tmp_path / "thesis.md").read_text() == "mine"


def test_a_site_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    write_site(tmp_path / "site", "Board", entries(3), [])
    write_site(tmp_path / "site", "Board", [], [])
    assert not list((tmp_path / "site/submissions").iterdir())
    assert "No submission was VALID yet" in (tmp_path / "site/index.html").read_text("utf-8")


def test_the_same_entries_make_the_same_site(tmp_path: Path) -> None:
    for name, given in (("a", entries(6)), ("b", entries(6)[::-1])):
        write_site(tmp_path / name, "Board", given, [])
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_command_that_asks_for_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "give bundles and -o, or --codabench, or --eval-yaml" in capsys.readouterr().err


# Tiers


def _report(tier: str, *findings: Finding) -> dict:
    with on_record():
        digest = verify(bundle()).digest
    return Report("bundle.zip", digest, findings, tier, {}).body()


def _tier(folder: Path, body: dict, **keys: list[Path]) -> tuple[list[Entry], list]:
    file = folder / "report.json"
    file.write_text(json.dumps(body))
    return read([bundle()], read_reports([file], **keys))


@pytest.mark.parametrize("tier", [tiers.RESCORED, tiers.REPLAYED])
def test_an_own_report_gives_its_tier(tier: str, tmp_path: Path) -> None:
    ((one,), _) = _tier(tmp_path, _report(tier))
    assert one.tier == tier


def test_an_own_report_with_an_error_makes_a_bundle_invalid(tmp_path: Path) -> None:
    wrong = Finding("run", "error", "round 2", "The round differs.", "replay")
    shown, (one,) = _tier(tmp_path, _report(tiers.REPLAYED, wrong))
    assert not shown and wrong in one.findings


def test_a_partys_signed_replay_is_a_reproduction(tmp_path: Path) -> None:
    new_key(tmp_path / "lab")
    body = sign_object(_report(tiers.REPLAYED), private_key(tmp_path / "lab"))
    ((one,), _) = _tier(tmp_path, body, parties=[tmp_path / "lab.pub"])
    assert one.tier == tiers.REPRODUCED
    assert any("Replayed by lab" in finding.sentence for finding in one.findings)
    ((one,), _) = _tier(tmp_path, body, own=[tmp_path / "lab.pub"])
    assert one.tier == tiers.REPLAYED


def test_a_partys_re_scoring_or_doubt_is_no_reproduction(tmp_path: Path) -> None:
    new_key(tmp_path / "lab")
    wrong = Finding("run", "error", "round 2", "The round differs.", "replay")
    for report in (_report(tiers.RESCORED), _report(tiers.REPLAYED, wrong)):
        body = sign_object(report, private_key(tmp_path / "lab"))
        ((one,), _) = _tier(tmp_path, body, parties=[tmp_path / "lab.pub"])
        assert one.tier == tiers.CONSISTENT
    assert ("warning", "lab: The round differs.") in {(f.level, f.sentence) for f in one.findings}


def test_a_report_of_an_unknown_key_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "lab")
    body = sign_object(_report(tiers.REPLAYED), private_key(tmp_path / "lab"))
    with pytest.raises(UserError, match="signed by a key that is not known"):
        _tier(tmp_path, body)


def test_a_signed_report_that_was_changed_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "lab")
    body = sign_object(_report(tiers.RESCORED), private_key(tmp_path / "lab"))
    with pytest.raises(UserError, match="its signature"):
        _tier(tmp_path, body | {"tier": tiers.REPLAYED}, parties=[tmp_path / "lab.pub"])


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"tier": "best"}, {"valid": False}, {"findings": [1]}, {"digest": 1}]
)
def test_a_malformed_report_is_refused(change: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no report"):
        _tier(tmp_path, _report(tiers.REPLAYED) | change)


def test_a_report_on_another_bundle_changes_nothing(tmp_path: Path) -> None:
    ((one,), _) = _tier(tmp_path, _report(tiers.REPLAYED) | {"digest": "0" * 64})
    assert one.tier == tiers.CONSISTENT


# Order


def test_equal_averages_share_a_rank_and_references_have_none() -> None:
    (board,) = boards(
        [
            entry(1, division="closed", average="50.00", mib=9.0, id="more"),
            entry(2, division="closed", average="50.00", mib=5.0, id="less"),
            entry(3, division="closed", average="44.00", id="low"),
            entry(4, division="closed", average="60.00", id="high"),
        ]
    )
    assert [(row.rank, row.entry.id) for row in board.rows] == [
        (1, "high"), (2, "less"), (2, "more"), (None, "baseline-finance"), (4, "low"),
    ]  # fmt: skip


def test_averages_are_compared_as_decimals_not_as_texts() -> None:
    rows = ranked([entry(1, average="9.50"), entry(2, average="10.00")])
    assert [row.entry.average for row in rows] == ["10.00", "9.50"]


def test_what_differs_in_rules_version_or_division_stands_apart() -> None:
    given = [
        entry(n, rules=rules, rules_version=version, division=division)
        for n, (rules, version, division) in enumerate(
            [
                ("50-supernodes", "1.0.0", "open"),
                ("50-supernodes", "1.1.0", "open"),
                ("flower.ai", "1.0.0", "open"),
                ("50-supernodes", "1.0.0", "closed"),
            ]
        )
    ]
    found = boards(given)
    assert len(found) == 4 and all(len(board.entries) == 1 for board in found)
    assert [board.rules_version for board in found[:2]] == ["1.1.0", "1.0.0"]  # the newest first


def test_the_frontier_has_just_what_nothing_beats() -> None:
    many = entries(200)

    def beaten(one: Entry) -> bool:
        assert one.mib is not None
        return any(
            (other.mib or 0) <= one.mib and other.points >= one.points
            and ((other.mib or 0) < one.mib or other.points > one.points)
            for other in many
        )  # fmt: skip

    found = frontier(many, lambda one: one.mib)
    assert {one.id for one in found} == {one.id for one in many if not beaten(one)}
    unknown = replace(many[0], mib=None, average="100.00")
    assert unknown not in frontier([*many, unknown], lambda one: one.mib)


def test_axes_hold_all_points_and_say_so_when_logarithmic() -> None:
    narrow, wide = cost_axis([10, 20], 0, 100), cost_axis([1, 10_000], 0, 100)
    assert not narrow.logarithmic and wide.logarithmic
    assert 0 <= narrow.at(10) < narrow.at(20) <= 100 and 0 <= wide.at(1) < wide.at(10_000) <= 100
    assert cost_axis([5.0], 0, 100).at(5.0) == 50.0
    (board,) = boards([entry(1, division="open")])
    figure = scatter("x", "X", "x", board.rows, lambda e: e.mib, str, str)
    assert figure is not None and len(figure.points) == 1 and figure.points[0].best


# Safe in every form


def test_no_text_becomes_markup_of_its_own(site: Path) -> None:
    for page in all_pages(site):
        tree = html5lib.parse(page.read_bytes(), namespaceHTMLElements=False)
        sources = {script.get("src") for script in tree.iter("script")}
        root = "" if page.parent == site else "../"
        assert sources == {f"{root}theme.js", f"{root}board.js"}, page
        for element in tree.iter():
            if not isinstance(element.tag, str):
                continue  # a comment
            assert element.tag not in (
                "img",
                "iframe",
                "object",
                "embed",
                "form",
                "textarea",
                "style",
            )
            assert not [name for name in element.attrib if name.startswith("on") or name == "style"]
            target = element.get("href") or ""
            assert (
                re.match(r"(https://|\.\./|#|data:,$|[\w.-]+$|[\w.-]+/[\w.-]+$)", target)
                or not target
            )


def test_hostile_texts_stand_there_as_they_are(site: Path) -> None:
    pages = [unescape(page.read_text("utf-8")) for page in all_pages(site)]
    for text in HOSTILE:
        assert sum(text in page for page in pages) >= 3, text


def test_every_page_is_valid_html(site: Path) -> None:
    for page in all_pages(site):
        parser = html5lib.HTMLParser(strict=True)
        tree = parser.parse(page.read_bytes())
        ids = [e.get("id") for e in tree.iter() if e.get("id")]
        assert len(ids) == len(set(ids)), page
        named = " ".join(filter(None, (e.get("aria-labelledby") for e in tree.iter()))).split()
        assert set(named) <= set(ids), page


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    for page in all_pages(site):
        for target in re.findall(r'(?:href|src)="([^"#:]+)"', page.read_text("utf-8")):
            assert (page.parent / target).is_file(), f"{page}: {target}"


def test_every_page_forbids_all_but_the_sites_own_files(site: Path) -> None:
    for page in all_pages(site):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.read_text("utf-8"))
        assert policy is not None
        assert policy[1].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        )


@pytest.mark.parametrize(
    "text, shown",
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"), ("  =1", "'  =1"), ("\uff1d1", "'\uff1d1"), ("a=1", "a=1"), ("", ""),
    ],
)  # fmt: skip
def test_no_cell_of_a_csv_is_a_formula(text: str, shown: str) -> None:
    assert tables.cell(text) == shown


def test_numbers_of_a_csv_stay_numbers() -> None:
    assert [tables.cell(value) for value in (-1.5, 3, None, True)] == ["-1.5", "3", "", "yes"]


def test_a_csv_has_what_the_json_has(site: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((site / "board.csv").read_text("utf-8"))))
    rows = [row for board in json.loads((site / "board.json").read_text("utf-8"))["boards"]
            for row in board["rows"]]  # fmt: skip
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line["average"] == row["average"] and line["id"] == row["id"]
        for name, one in row["scores"].items():
            assert line[name] == one["score"]
    assert not [line for line in lines if line["team"].startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    "text, wanted, never",
    [
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;", "<b>"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))", "href"),
        ("[x](JaVaScript&colon;alert(1))", "[x]", "href"),
        ("[x](data:text/html,hi)", "[x]", "href"),
        ("[x](//example.org)", "[x]", "href"),
        ("![x](https://example.org/pixel.png)", 'rel="nofollow noopener noreferrer"', "<img"),
        ("# Top", "<h3>Top</h3>", "<h1"),
        ("###### Deep", "<h6>Deep</h6>", "<h8"),
        ("a \u202e b", "\\u202e", "\u202e"),
        ("|a|\n|-:|\n|1|", '<td class="number">1</td>', "style"),
        ('```" onload="x\ny\n```', "<code", ' onload="'),
    ],
)
def test_markdown_is_safe(text: str, wanted: str, never: str) -> None:
    shown = prose.markdown(text)
    assert wanted in shown and never not in shown


@pytest.mark.parametrize(
    "piece", ["[", "![", "*a ", "`", "<", "> ", "&", "[a](", "_a_*", "- \n", "|"]
)
def test_markdown_takes_no_longer_than_its_length(piece: str) -> None:
    import time

    begin = time.perf_counter()
    prose.markdown((piece * card.CHARACTERS)[: card.CHARACTERS])
    assert time.perf_counter() - begin < 5


def test_the_method_is_the_participants_section() -> None:
    text = "---\na: 1\n---\n# T\n\n## Method\n\n{}\n\nDiffers from the template in: x."
    text += "\n\n## Scores\n\n|"
    assert (
        card.method(text.format("We *do* it.\n\n## Scores\n\nours"))
        == "We *do* it.\n\n## Scores\n\nours"
    )
    assert card.method(text.format(TO_FILL_IN)) == ""
    assert card.method("no such section") == ""
    assert len(card.method(text.format("x" * 10**6))) < card.CHARACTERS + 10


def test_commands_cannot_be_broken_out_of() -> None:
    assert "'a; rm -rf ~.zip'" in commands("a; rm -rf ~.zip")[1]
    assert commands("--rescore")[1].endswith("./--rescore")


# Style


def test_the_switch_has_the_colors_of_the_reports_style() -> None:
    base = (ROOT / "flowertune/report/style.css").read_text("utf-8")
    own = (ROOT / "submissions/board/static/board.css").read_text("utf-8")

    def colors(text: str) -> dict[str, str]:
        return dict(re.findall(r"(--[\w-]+): ([^;]+);", text))

    light, dark = (part.partition("}\n")[0] for part in base.split(":root {")[1:3])
    for theme, part in (("light", light), ("dark", dark)):
        block = own.partition(f'[data-theme="{theme}"] {{')[2].partition("}")[0]
        assert colors(block) == colors(part), theme


@pytest.mark.slow
@pytest.mark.full
def test_a_thousand_submissions_take_less_than_a_minute(tmp_path: Path) -> None:
    import time

    begin = time.perf_counter()
    write_site(tmp_path / "site", "Board", entries(1000), [])
    assert time.perf_counter() - begin < 60
    assert len(list((tmp_path / "site/submissions").glob("*.html"))) == 1000
    shutil.rmtree(tmp_path / "site")


def test_the_method_of_a_submission_is_shown(site: Path) -> None:
    page = (site / "submissions/team-1-000000000001.html").read_text("utf-8")
    assert "<strong>B</strong>" in page and 'href="https://example.org/paper"' in page
    assert METHOD[:10] not in page


def test_a_picture_in_a_method_is_a_link_to_it_and_nothing_is_loaded() -> None:
    made = prose.markdown("![the loss](https://x.org/l.png) ![](https://x.org/m.png)")
    assert made.count("<a href=") == 2 and ">picture: the loss</a>" in made
    assert ">picture</a>" in made and "<img" not in made and "!" not in made
    within = prose.markdown("[![one](https://x.org/1.png)](https://x.org/)")
    assert within.count("<a ") == 1 and ">picture: one</a>" in within
    assert "<a" not in prose.markdown("![x](javascript:alert(1))")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as `submit` writes it", "as <code>submit</code> writes it"),
        ("`<b>`", "<code>&lt;b&gt;</code>"),
        ("one ` alone <i>", "one ` alone &lt;i&gt;"),
        ("`\u202e`", r"<code>\u202e</code>"),
    ],
)
def test_code_in_a_sentence_is_code_and_nothing_else_is_markup(text: str, shown: str) -> None:
    assert prose.sentence(text) == shown


@pytest.mark.parametrize(
    ("value", "short", "long"),
    [
        (0.0, "0", "less than 1 s"), (0.0002, "<0.01", "less than 1 s"),
        (0.02, "0.02", "1 min 12 s"), (0.5, "0.5", "30 min 00 s"), (3.5, "3.5", "3.5 h"),
        (1234.56, "1,234.6", "1,234.6 h"),
    ],
)  # fmt: skip
def test_hours_have_as_many_digits_as_anybody_reads(value: float, short: str, long: str) -> None:
    assert (hours(value), took(value)) == (short, long)


def test_what_the_participant_declares_is_told_from_what_the_run_noted(tmp_path: Path) -> None:
    own = entry(1, id="own", division="open", hours=2.0, run_hours=2.0)
    said = entry(
        2, id="said", division="open", hours=1.0, run_hours=9.0, hardware="a laptop",
        run_hardware="8 × H100",
    )  # fmt: skip
    write_site(tmp_path / "site", "Board", [own, said], [])
    pages = {
        one: (tmp_path / f"site/submissions/{one}.html").read_text() for one in ("own", "said")
    }
    assert "of training, as the run noted" in pages["own"] and "declared" not in pages["own"]
    for text in ("of training, as declared", "9.0 h", "hardware, as declared", "8 × H100"):
        assert text in pages["said"], text
    (board,) = json.loads((tmp_path / "site/board.json").read_text())["boards"]
    assert {row["id"]: row["run-hours"] for row in board["rows"]}["said"] == 9.0
    (table,) = (tmp_path / "site/boards").glob("*.html")
    assert table.read_text().count("<small>declared</small>") == 1


def test_a_row_is_marked_where_a_person_should_look_and_who_signed_is_shown(real: Path) -> None:
    write = json.loads((real / "board.json").read_text("utf-8"))["boards"][0]["rows"]
    (ours,) = (row for row in write if not row["reference"])
    assert (ours["warnings"], ours["signed-by"]) == (["same-adapter"], None)
    (table,) = (real / "boards").glob("*.html")
    mark = (
        f'<a class="badge warn" href="../submissions/{ours["id"]}.html#verifier">same adapter</a>'
    )
    assert mark in table.read_text("utf-8")
    page = (real / "submissions" / f"{ours['id']}.html").read_text("utf-8")
    assert 'id="verifier"' in page and "<dt>signed by the key</dt><dd><code>nobody</code>" in page
    lines = csv.DictReader(io.StringIO((real / "board.csv").read_text("utf-8")))
    assert "same-adapter" in {line["warnings"] for line in lines}


def test_a_signed_bundles_key_is_on_the_board(tmp_path: Path) -> None:
    signer = new_key(tmp_path / "key")
    one = submitted(scored(), tmp_path / "one.zip")
    folder = unpacked(tmp_path / "one", one)
    sums = (folder / layout.SUMS).read_bytes()
    made = signature.sign(sums, private_key(tmp_path / "key"))
    (folder / layout.SIGNATURE).write_text(json.dumps(made))
    ((shown,), _) = read([folder])
    assert shown.signed_by == signer.fingerprint
    write_site(tmp_path / "site", "Board", [shown], [])
    (page,) = (tmp_path / "site/submissions").glob("*.html")
    text = page.read_text("utf-8")
    assert signer.fingerprint in text and '<span class="badge plain">signed</span>' in text
