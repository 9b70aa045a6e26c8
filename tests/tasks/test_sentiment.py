"""The packaged sentiment data, as it is in the real archive."""

from collections import Counter

import pytest

from rankexp.data.rows import without_duplicates
from rankexp.tasks.base import make_task
from rankexp.tasks.sentiment import SentimentTask
from rankexp.testing import ClassificationConformance, TaskConformance

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def rows():
    return SentimentTask().read(lambda _: None)


def test_every_row_of_the_four_collections_is_read(rows):
    assert Counter(row.example_id.partition("-")[0] for row in rows) == {
        "movie": 10605, "nyt": 5190, "tweets": 4200, "amazon": 3708,
    }  # fmt: skip
    assert len({row.example_id for row in rows}) == len(rows) == 23703


def test_a_rating_of_half_a_point_is_an_opinion(rows):
    """The paper's data has 10,087, 8,999 and 4,533 texts beyond and between half a point; 323 lie exactly on it."""
    different = {row.text: row.label for row in reversed(rows)}
    assert Counter(different.values()) == {"positive": 10087 + 171, "negative": 8999 + 152, "neutral": 4533 - 323}
    assert len(without_duplicates(rows)) == 23555


def test_sentences_of_one_review_or_article_are_one_group(rows):
    documents = Counter(row.group_id for row in rows if row.example_id.startswith(("amazon", "nyt")))
    assert len(documents) == 798
    assert sum(documents.values()) == 8898
    assert all(row.group_id == row.example_id for row in rows if row.example_id.startswith(("movie", "tweets")))


def test_a_place_names_file_and_row(rows):
    assert rows[0].place == "movie.tsv row 1"


def test_sources_can_be_chosen():
    options = {"name": "sentiment", "sources": ["tweets"]}
    sizes = {"train": 100, "tune": 20, "decide": 30, "test": 30}
    data = make_task({**options, "sizes": sizes}).load(TaskConformance().tokenize, lambda _: None)
    assert {name: len(split) for name, split in data.splits.items()} == sizes
    assert all(name.startswith("tweets-") for split in data.splits.values() for name in split.example_ids)
    assert data.objective.labels == ("negative", "neutral", "positive")


class TestConformance(ClassificationConformance):
    def make_task(self):
        return SentimentTask()

    def test_sizes_are_reached_and_overshot_by_less_than_a_document(self):
        wanted = SentimentTask().sizes
        for name, split in self.data().splits.items():
            assert wanted[name] <= len(split) < wanted[name] + 60
