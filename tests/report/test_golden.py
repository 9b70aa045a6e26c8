"""Golden reports, one for each kind of study, and the schema that every report.json fulfils."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
from fake_study import PRUNED, PRUNINGS, make_study

import rankexp
from rankexp.analysis.study import load_study
from rankexp.report.build import render_markdown, write_report
from rankexp.report.document import document

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEMA = json.loads((Path(rankexp.__file__).parent / "report" / "report.schema.json").read_text())
NEAR = {4: 0.717, 8: 0.726, 16: 0.724, 32: 0.723}
IMPORTANCE = {
    "method": "PED-ANOVA",
    "runs": 12,
    "best": 5,
    "shares": {"rank": 0.25, "alpha": 0.05, "learning_rate": 0.7},
}
CASES = {
    "settled": (
        {"seeds": 5, "open_test": True, "dimensions": (10, 100, 1000), "notes": {"importance": IMPORTANCE}},
        "SETTLED",
        8,
    ),
    "safe": ({"seeds": 5, "accuracies": NEAR, "margin": 0.009}, "SAFE", 8),
    "insufficient": ({"margin": 0.003, "accuracies": {8: 0.715, 16: 0.722, 32: 0.723}}, "INSUFFICIENT", None),
    "unfinished": ({"seeds": 5, "missing": [(8, 1)]}, "UNFINISHED", None),
    "failures": ({"seeds": 5, "open_test": True, "diverged": [(4, 3)]}, "SAFE", 8),
    "one_seed": ({"seeds": 1}, "INSUFFICIENT", None),
    "second_look": ({"seeds": 6, "looks": (3, 6), "look": 1}, "SETTLED", 8),
    "loss": ({"seeds": 5, "score": "loss", "margin": 0.05, "dimensions": (10, 100)}, "SETTLED", 8),
    "contest": ({"seeds": 5, "contenders": PRUNED, "prunings": PRUNINGS}, "SETTLED", 8),
    "nothing_learned": ({"accuracies": {8: 0.47, 16: 0.48}, "majority": 0.55}, "INSUFFICIENT", None),
    "no_verdict": ({"seeds": 2, "verdict": False, "majority": 0.4}, "DESCRIPTIVE", None),
    "located": ({"seeds": 5, "surface": True}, "SETTLED", 8),
    "all_unstable": ({"seeds": 3, "diverged": [(r, 0) for r in (4, 8, 16, 32)]}, "INSUFFICIENT", None),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    settings, status, chosen = CASES[request.param]
    study = load_study(make_study(tmp_path_factory.mktemp(request.param), **settings))
    return request.param, document(study), status, chosen


def test_a_report_is_its_golden_file(case):
    name, doc, status, chosen = case
    assert (doc["status"], doc["chosen_rank"]) == (status, chosen)
    text = render_markdown(doc).replace(f"rankexp: {rankexp.__version__}", "rankexp: VERSION")
    path = GOLDEN / f"report_{name}.md"
    if os.environ.get("RANKEXP_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_a_document_fulfils_the_schema(case):
    _, doc, _, _ = case
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(json.dumps(doc, allow_nan=False)), SCHEMA)


@pytest.mark.parametrize("spoil", [
    lambda doc: doc.pop("power"), lambda doc: doc.update(extra=1), lambda doc: doc.update(status="MAYBE"),
    lambda doc: doc.update(importance={**IMPORTANCE, "shares": {"batch": 1.0}}), lambda doc: doc["ranks"]["8"].update(mean="high"), lambda doc: doc["spectrum"]["map"].update(tested=True),
])  # fmt: skip
def test_the_schema_refuses_what_is_no_report(tmp_path, spoil):
    doc = json.loads(json.dumps(document(load_study(make_study(tmp_path)))))
    spoil(doc)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(doc, SCHEMA)


@pytest.mark.thorough
def test_two_thousand_trials_make_a_small_report(tmp_path):
    folder = make_study(tmp_path, seeds=495, examples=500)
    study = load_study(folder)
    assert len(study.trials) >= 1997
    page = write_report(study)
    doc = json.loads((page.parent / "report.json").read_text())
    jsonschema.validate(doc, SCHEMA)
    assert len(doc["trials"]) == len(study.trials)
    assert doc["seeds"] == 495
    assert sum(file.stat().st_size for file in page.parent.rglob("*") if file.is_file()) < 15e6
