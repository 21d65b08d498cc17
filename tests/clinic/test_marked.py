"""One question as several arms answer it: every claim is marked by its verdict, and no answer writes its own marks."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from clinical_r1.clinic import load_set
from clinical_r1.clinic.cases import Case, phrase
from clinical_r1.clinic.marked import LONGEST, NOT_ADVICE, mark_answers, mark_rows
from clinical_r1.clinic.traces import teaching_completions
from clinical_r1.clinic.verdicts import VERDICTS, claim_table, find_claims, read_claims
from clinical_r1.labels import VERDICT_LOOKS

QUESTION = load_set("clinic", "validation", 4)[3]
CASE = Case.from_json(QUESTION.meta["case"])
WRITTEN = teaching_completions(CASE)


def one(text, style="crpo"):
    return mark_answers(QUESTION, [("CRPO", text, style)])


class Page(HTMLParser):
    """The tags of a page, what it shows, and what each marked claim shows."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.shown, self.claims, self.inside = [], set(), "", [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.inside = tag == "u" or (self.inside and tag == "span")
        self.claims += [""] if tag == "u" else []

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "u"

    def handle_data(self, data):
        self.shown += data
        if self.inside:
            self.claims[-1] += data


@pytest.mark.parametrize("name", WRITTEN)
def test_the_marks_are_the_verdicts_of_the_claim_table(name):
    text = WRITTEN[name]
    table, (answer,) = claim_table(text, CASE), one(text).answers
    assert dict(answer.counts) == {kind: (table["verdict"] == kind).sum() for kind in VERDICTS}
    assert {kind for *_, kind in answer.claims} == set(table["verdict"])
    assert {claim for *_, claim in find_claims(text)} == set(read_claims(text))
    marked = re.findall(r"⟦(.) ([^⟧]+)⟧", str(one(text)).split("claims: ", 2)[-1])
    assert [words for _, words in marked] == [text[start:end] for start, end, _ in answer.claims]
    signs = {look[0]: kind for kind, look in VERDICT_LOOKS.items()}
    assert [signs[sign] for sign, _ in marked] == [kind for *_, kind in answer.claims]


def test_each_of_the_four_verdicts_has_its_mark():
    stated = next((f, p) for f, p in CASE.stated if CASE.weight(f, p, CASE.gold) > 0)
    neutral = next((f, p, c) for f, p in CASE.stated for c in CASE.options if CASE.weight(f, p, c) == 0)
    lines = [
        f"{phrase(*stated)} supports {CASE.gold}",
        f"{phrase(*stated)} argues against {CASE.gold}",
        f"{phrase(stated[0], not stated[1])} supports {CASE.gold}",
        f"{phrase(*neutral[:2])} supports {neutral[2]}",
    ]
    shown = one(". ".join(lines))
    signs = [VERDICT_LOOKS[kind][0] for kind in
             ("true", "contradicted_by_kb", "contradicted_by_vignette", "unverifiable")]  # fmt: skip
    assert [f"⟦{sign} {line}⟧" in str(shown) for sign, line in zip(signs, lines, strict=True)] == [True] * 4
    assert Page(shown._repr_html_()).claims[len(VERDICTS) :] == lines  # after the legend


def test_a_repeated_claim_is_marked_twice_and_counted_once():
    claim = f"{phrase(*CASE.stated[0])} supports {CASE.gold}"
    (answer,) = one(f"{claim}. {claim}.").answers
    assert len(answer.claims) == 2 and sum(answer.counts.values()) == 1


def test_answers_say_whether_they_are_right_and_the_page_what_the_signs_mean():
    wrong = next(letter for letter in QUESTION.options if letter != QUESTION.answer)
    texts = [f"\\boxed{{{QUESTION.answer}}}", f"\\boxed{{{wrong}}}", "no box", ""]
    shown = mark_answers(QUESTION, [(f"arm {i}", text, "grpo") for i, text in enumerate(texts)])
    for page in (str(shown), Page(shown._repr_html_()).shown):
        assert f"arm 0: answers {QUESTION.answer}, right; distinct claims: none" in page
        assert f"arm 1: answers {wrong}, wrong" in page and page.count("no answer (there is no \\boxed") == 2
        assert all(look[0] in page and look[1] in page for look in VERDICT_LOOKS.values())
        assert f"{QUESTION.answer}: {QUESTION.options[QUESTION.answer]}   (right)" in page
        assert "(nothing)" in page and NOT_ADVICE in page


HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "</u></span></div></body><style>*{display:none}</style>",
    "\"' onmouseover='alert(1)' \" style=\"",
    "&lt;b&gt; &amp; &#60;script&#62;",
    "<!-- <![CDATA[ ]]> --> <dx <b",
    "$x^2$ $$y$$ \\(a\\) \\[b\\] \\begin{align}c\\end{align}",
    "\x1b[2J\x1b[31mred\x07\x00\r\b \u202eright to left\u2066\u200b\ufeff",
    "\ud800 half a pair, \udfff another",
    "⟦✓ a mark that no verdict gave⟧",
    f"{'<' * 3000}{'⟧' * 3000}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    claim = f"{phrase(*CASE.stated[0])} supports {CASE.gold}"
    shown = mark_answers(QUESTION, [(text, f"{claim}. {text}", "crpo")])
    plain, page = str(shown), Page(shown._repr_html_())
    assert repr(shown) == plain  # what a page without HTML shows
    calm = Page(mark_answers(QUESTION, [("x", f"{claim}. x", "crpo")])._repr_html_())
    assert set(page.tags) == set(calm.tags) and page.attributes == calm.attributes
    assert page.tags.count("u") == calm.tags.count("u") and page.claims == calm.claims
    assert plain.count("⟦") == plain.count("⟧") == len(VERDICTS) + 1
    for written in (plain, shown._repr_html_()):
        written.encode("utf-8")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069\ufeff]", written)
    formula = re.compile(r"\$[^<]|\\[^<]")  # a sign and what follows stand in different elements
    assert not formula.search(shown._repr_html_())


def test_a_hostile_question_stays_text():
    bad = replace(QUESTION, stem="<script>", options=QUESTION.options | {"A": "<b onclick=x>"})
    page = Page(mark_answers(bad, [("x", "", "crpo")])._repr_html_())
    assert "script" not in page.tags and "onclick" not in page.attributes and "<b onclick=x>" in page.shown


def test_a_long_answer_is_cut_between_claims_and_says_so():
    claim = f"{phrase(*CASE.stated[0])} supports {CASE.gold}. "
    last = f"{phrase(*CASE.stated[1])} supports {CASE.gold}. "
    text = claim * (LONGEST // len(claim) + 50) + last
    shown = one(text)
    assert sum(shown.answers[0].counts.values()) == 2 and "more characters, not shown" in str(shown)
    assert set(Page(shown._repr_html_()).claims[len(VERDICTS) :]) == {claim.removesuffix(". ")}


def test_stored_rows_give_one_answer_an_arm():
    rows = [
        {"id": name, "method": method, "style": "crpo", "text": f"{method} {i}"}
        for name in ("other", QUESTION.id)
        for method in ("baseline", "crpo", "mine")
        for i in range(2)
    ]
    shown = mark_rows(QUESTION, rows, {"mine": "My arm"})
    assert [(a.label, a.text) for a in shown.answers] == [
        ("Baseline", "baseline 0"), ("CRPO", "crpo 0"), ("My arm", "mine 0")
    ]  # fmt: skip
    assert [a.label for a in mark_rows(QUESTION, rows).answers] == ["Baseline", "CRPO", "mine"]
    with pytest.raises(ValueError, match="none of the completions answers"):
        mark_rows(QUESTION, rows[:6])


def test_replayed_rows_are_read_as_scoring_reads_them():
    text = f'{{"step_by_step_thinking": "x", "answer_choice": "{QUESTION.answer}"}}'
    row = {"id": QUESTION.id, "method": "gpt", "style": "crpo", "text": text}
    (plain,), (mirage,) = (mark_rows(QUESTION, [row | more]).answers for more in ({}, {"parser": "mirage"}))
    assert plain.letter is None and mirage.letter == QUESTION.answer
    broken = mark_rows(QUESTION, [row | {"parser": "mirage", "text": "{"}])
    assert "no answer (the text is not JSON" in str(broken)


def test_what_cannot_be_marked_is_refused():
    with pytest.raises(ValueError, match="no evidence graph"):
        mark_answers(replace(QUESTION, meta={}), [("x", "", "crpo")])
    with pytest.raises(ValueError, match="not from today's"):
        mark_answers(replace(QUESTION, meta=QUESTION.meta | {"kb_sha256": "0" * 64}), [("x", "", "crpo")])
    with pytest.raises(ValueError, match="got no answers"):
        mark_answers(QUESTION, [])
