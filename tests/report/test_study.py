"""The page of a study: what a reader finds in it, for any rows and names."""

import re

from supernet.report.comparison import claims, differences, found, groups
from supernet.report.study import page

AGAINST = {
    "method": "darts",
    "pairs": 3,
    "difference": 0.021,
    "ci95": [0.01, 0.032],
    "p": 0.01,
    "p_holm": 0.03,
    "d": 3.5,
    "seeds": 4,
    "shown": True,
}


def row(method, against=None, **more):
    return {
        "space": "nb201",
        "data": "digits",
        "method": method,
        "runs": 3,
        "accuracies": [0.8, 0.85, 0.9],
        "mean": 0.85,
        "ci95": [0.8, 0.9],
        "sd": 0.05,
        "seeds": [0, 1, 2],
        "rival": False,
        "base": None,
        "share": None,
        "tried": None,
        "search_seconds": 6.0,
        "total_seconds": [3.0, 4.0, 5.0],
        "relative_improvement": {"mean": 12.5, "ci95": [3.0, 22.0]},
        "against": against,
    } | more


HOSTILE = "<img src=x onerror=alert(1)>"
ROWS = [
    row("darts"),
    row(HOSTILE, AGAINST, mean=0.9),
    row("random_search", AGAINST | {"shown": False}, rival=True, tried=12, whole=12),
    row("early_stopping", rival=True, tried=7, whole=1),
    row("darts without cutout", AGAINST | {"shown": None, "p_holm": None}, base="darts"),
    row("darts with 0.5 of its search", AGAINST, base="darts", share=0.5),
    row("darts", space="darts"),
]


def test_the_tables_and_claims_say_what_the_rows_say():
    first, other = groups(ROWS).values()
    table = found(first)
    assert [cells[0] for cells in table.rows][2:] == [
        "random search (12 trainings)",
        "early stopping (7 trainings, 1 of all epochs)",
        "darts without cutout",
        "darts with 0.5 of its search",
    ]
    assert table.rows[0][-2:] == ["+12.5% (+3.0% to +22.0%)", "2.0"]
    assert table.rows[4][-1] == "–"  # an ablation searches nothing
    assert table.rows[5][-1] == "2.0"
    verdicts = [cells[-2] for cells in differences(first).rows]
    assert verdicts == ["better", "no difference shown", "too few seeds to say", "better"]
    said = claims(first)
    assert (
        said[0]
        == f"The highest mean: {HOSTILE}, 90.00% over 3 seeds, 95% interval 80.00% to 90.00%."
    )
    assert said[2].endswith("+2.10 points over 3 seeds: no difference shown.")
    assert differences(other) is None
    chance = {**other[0], "method": "random architectures", "mean": 0.95, "ci95": None}
    del chance["total_seconds"]
    assert "Above it without a search: random architectures, 95.00%." in claims([*first, chance])
    assert not any("without a search" in one for one in said)


def test_the_page_has_a_section_for_each_group_and_runs_no_code_of_a_name():
    results = {"study": ROWS, "runs": [], "failed": {"darts-3": HOSTILE}}
    text = page("s", results, {}, ["study.methods=[a b]", "hydra.run.dir=x"])
    assert HOSTILE not in text and "&lt;img" in text
    assert re.findall("<h2>(.*?)</h2>", text) == [
        *("nb201 on digits", "darts on digits", "How to read the tables", "Every run"),
        *("Runs that failed", "Do it again"),
    ]
    assert "supernet study &#39;study.methods=[a b]&#39;</pre>" in text
    ids = re.findall(r'\bid="(.*?)"', text)
    assert len(ids) == len(set(ids)) and len(re.findall("<svg", text)) >= 4
