"""The internal form: checks, limits, joining, fingerprints and missing splits."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfcompress.data.document import Document
from hfcompress.data.ranking import RankingData, Split, merge, stable_hash, validate
from hfcompress.errors import DataError

CORPUS = {
    "d1": Document("Cats", "sleep all day"),
    "d2": Document("", "dogs bark"),
    "d3": Document("", "birds fly"),
    "d4": Document("", "fish swim"),
    "d5": Document("", "frogs leap"),
}


def example(name: str = "animals", **changes: Any) -> RankingData:
    """Two test queries and a train query; q1's d3 is judged and no candidate, d5 is neither."""
    values: dict[str, Any] = {
        "name": name,
        "queries": {"q1": "who sleeps", "q2": "who barks", "q3": "who swims"},
        "corpus": CORPUS,
        "splits": {
            "train": Split({"q3": {"d4": 1}}, {"q3": ["d4", "d1"]}),
            "test": Split({"q1": {"d1": 2, "d2": 0, "d3": 1}, "q2": {"d2": 1}}, {"q1": ["d2", "d1"], "q2": ["d2"]}),
        },
    }
    return RankingData(**values | changes)


def with_test(qrels: dict[str, dict[str, Any]], candidates: dict[str, list[str]] | None = None) -> RankingData:
    given = candidates if candidates is not None else {query: [] for query in qrels}
    return example(splits={"test": Split(qrels, given)})


def fault(data: RankingData) -> str:
    with pytest.raises(DataError) as caught:
        validate(data)
    assert caught.value.expected and caught.value.remedy and caught.value.value is not None
    return str(caught.value)


# Texts and ids


def test_content_joins_title_and_text() -> None:
    assert Document("Cats", "sleep").content == "Cats sleep"
    assert Document("", "sleep").content == "sleep"


def test_pairs_hold_the_texts_in_the_order_asked_for() -> None:
    assert example().pairs("q1", ["d2", "d1"]) == [("who sleeps", "dogs bark"), ("who sleeps", "Cats sleep all day")]


def test_check_returns_sound_data_itself() -> None:
    data = example()
    assert validate(data) is data


@pytest.mark.parametrize("text", ["", " \t\n"], ids=["nothing", "white space"])
def test_empty_texts(text: str) -> None:
    message = fault(example(queries={"q1": text, "q2": "x", "q3": text}))
    assert "2 query text(s) of 'animals' are empty" in message and "['q1', 'q3']" in message
    message = fault(example(corpus={**CORPUS, "d2": Document("", text)}))
    assert "1 document text(s)" in message and "['d2']" in message


def test_a_title_alone_is_some_text() -> None:
    validate(example(corpus={**CORPUS, "d2": Document("Dogs", "")}))


def test_many_faulty_ids_are_counted_and_five_are_named() -> None:
    message = fault(example(queries={f"q{number}": "" for number in range(1, 10)}))
    assert "9 query text(s)" in message and "'q5'" in message and "'q6'" not in message


@pytest.mark.parametrize(
    ("qrels", "candidates", "words"),
    [
        ({"q9": {"d1": 1}}, {}, ["'test' qrels", "unknown query", "['q9']", "queries.jsonl"]),
        ({"q1": {"d9": 1}}, {}, ["'test' qrels", "unknown document", "['d9']", "corpus.jsonl"]),
        ({"q1": {"d1": 1}}, {"q9": ["d1"]}, ["'test' candidates", "unknown query", "['q9']"]),
        ({"q1": {"d1": 1}}, {"q1": ["d1", "d9"]}, ["'test' candidates", "unknown document", "['d9']"]),
        ({"q1": {"d1": 1}}, {"q1": ["d1", "d2", "d1"]}, ["'q1'", "twice", "['d1']"]),
    ],
)
def test_ids_that_do_not_resolve(
    qrels: dict[str, dict[str, int]], candidates: dict[str, list[str]], words: list[str]
) -> None:
    message = fault(with_test(qrels, candidates))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("grade", [-1, 1.0, 0.5, "1", True])
def test_grades_are_integers_of_0_or_more(grade: Any) -> None:
    message = fault(with_test({"q1": {"d1": grade}}))
    assert f"Got: {grade!r}." in message and "'q1'" in message and "'d1'" in message and "integer of 0" in message


def test_grade_0_is_sound() -> None:
    validate(with_test({"q1": {"d1": 0}}))


# Splits


def test_split_returns_a_judged_split() -> None:
    data = example()
    assert data.split("test") is data.splits["test"]
    assert len(data.split("test")) == 2


def test_missing_split_names_those_there_are() -> None:
    with pytest.raises(DataError, match=r"no 'dev' split.*\['test', 'train'\].*qrels/dev\.tsv"):
        example().split("dev")


@pytest.mark.parametrize("qrels", [{}, {"q1": {}}, {"q1": {"d1": 0}, "q2": {"d2": 0}}])
def test_split_without_a_relevant_document(qrels: dict[str, dict[str, int]]) -> None:
    with pytest.raises(DataError, match=rf"'test' split.*{len(qrels)} judged queries.*grade of 1 or more"):
        with_test(qrels).split("test")


def test_split_without_labels_where_none_are_needed() -> None:
    data = with_test({}, {"q1": ["d1"]})
    assert data.split("test", labelled=False) is data.splits["test"] and not data.splits["test"].labelled
    assert example().splits["test"].labelled
    with pytest.raises(DataError, match="no query with a relevant document"):
        with_test({}, {}).split("test", labelled=False)


# Limits


def many(queries: list[str]) -> RankingData:
    corpus = {f"d{number}": Document("", f"text {number}") for number in range(6)}
    split = Split({query: {"d0": 1} for query in queries}, {query: list(corpus) for query in queries})
    return RankingData("many", {query: f"text of {query}" for query in queries}, corpus, {"test": split})


IDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)


@settings(deadline=None)
@given(ids=IDS, small=st.integers(1, 14), more=st.integers(0, 5), seed=st.integers(0, 9))
def test_a_smaller_limit_is_a_subset_whatever_the_order(ids: list[str], small: int, more: int, seed: int) -> None:
    shuffled = random.Random(seed).sample(ids, len(ids))
    first = many(ids).limited({"test": small})
    second = many(shuffled).limited({"test": small + more})
    kept, larger = list(first.splits["test"].candidates), list(second.splits["test"].candidates)
    assert kept == larger[: len(kept)]
    assert len(kept) == min(small, len(ids)) and len(larger) == min(small + more, len(ids))
    assert first.splits["test"].qrels.keys() == set(kept)
    assert first.fingerprint() == many(shuffled).limited({"test": small}).fingerprint()


def test_limits_count_queries_of_each_split_and_candidates_of_each_query() -> None:
    data = example().limited({"test": 1, "train": None, "dev": 3}, candidates=1)
    assert [len(data.splits[split]) for split in ("train", "test")] == [1, 1]
    assert data.splits["train"].candidates == {"q3": ["d4"]}
    assert all(len(found) == 1 for found in data.splits["test"].candidates.values())
    (query,) = data.splits["test"].candidates
    assert data.splits["test"].qrels[query] == example().splits["test"].qrels[query]  # judgements are not cut


def test_no_limits_keep_everything_in_the_order_of_the_hash() -> None:
    data = example().limited({})
    assert data.splits["test"].qrels == example().splits["test"].qrels
    assert data.splits["test"].candidates == example().splits["test"].candidates
    assert list(data.splits["test"].candidates) == sorted(["q1", "q2"], key=stable_hash)


def test_a_pool_is_ranked_whole() -> None:
    data = example(pool=True).limited({}, candidates=1)
    assert data.splits["test"].candidates["q1"] == ["d2", "d1"]


def test_limiting_leaves_the_data_as_it_was() -> None:
    data = example()
    before = data.fingerprint()
    data.limited({"test": 1}, candidates=1)
    assert data.fingerprint() == before


# Joining


def test_one_set_stays_as_it_is() -> None:
    data = example()
    assert merge([data]) is data


def test_ids_get_the_name_of_their_set() -> None:
    other = RankingData(
        "plants",
        {"q1": "what grows"},
        {"d1": Document("", "trees grow")},
        {"dev": Split({"q1": {"d1": 1}}, {"q1": ["d1"]}), "test": Split({"q1": {"d1": 3}}, {"q1": ["d1"]})},
        publish_texts=True,
        license="CC0",
        notes=("a note",),
    )
    data = validate(merge([example(license="MIT", publish_texts=False), other]))
    assert data.name == "animals+plants"
    assert set(data.queries) == {"animals/q1", "animals/q2", "animals/q3", "plants/q1"}
    assert data.queries["plants/q1"] == "what grows" and data.queries["animals/q1"] == "who sleeps"
    assert data.corpus["plants/d1"].content == "trees grow" and data.corpus["animals/d1"] == CORPUS["d1"]
    assert len(data.corpus) == 6
    assert list(data.splits) == ["train", "dev", "test"]
    assert data.splits["test"].qrels["plants/q1"] == {"plants/d1": 3}
    assert data.splits["test"].candidates["animals/q1"] == ["animals/d2", "animals/d1"]
    assert list(data.splits["dev"].candidates) == ["plants/q1"]
    assert data.license == "MIT; CC0" and not data.publish_texts and data.notes == ("a note",)
    assert data.pairs("plants/q1", ["plants/d1"]) == [("what grows", "trees grow")]


def test_texts_may_be_shown_if_every_set_allows_it() -> None:
    assert merge([example(publish_texts=True), example("others", publish_texts=True)]).publish_texts


def test_a_licence_shared_by_sets_is_named_once() -> None:
    assert merge([example(license="MIT"), example("others", license="MIT")]).license == "MIT"


def test_sets_of_the_same_name_clash() -> None:
    with pytest.raises(DataError, match=r"same name.*\['animals', 'animals'\].*rename"):
        merge([example(), example()])


def test_sets_with_other_thresholds_clash() -> None:
    with pytest.raises(DataError, match=r"lowest grade.*'animals': 1, 'others': 2"):
        merge([example(), example("others", relevant_from=2)])


@pytest.mark.parametrize(
    ("languages", "joined"),
    [(["en", "en"], "en"), (["zh-Hant", "de"], "de, zh-Hant"), (["", "en"], "en"), (["", ""], "")],
)
def test_joined_sets_name_all_their_languages(languages: list[str], joined: str) -> None:
    sets = [example(str(number), language=language) for number, language in enumerate(languages)]
    assert merge(sets).language == joined
    assert merge([merge(sets), example("more", language="de")]).language.split(", ")[0] == "de"


def test_the_set_of_a_query_may_have_slashes_in_its_name() -> None:
    names = ["beir/scifact", "beir/nfcorpus", "beir", "beir/nfcorpus/test"]
    data = merge([example(name) for name in names])
    assert [data.set_of(f"{name}/q1") for name in names] == names
    assert data.set_of("beir/nfcorpus/q1/2") == "beir/nfcorpus"
    assert data.set_of("pseudo-query/d1") == "pseudo-query"
    assert example("beir/scifact").set_of("a/q1") == "beir/scifact"


# Fingerprint


def test_texts_are_hashed_once() -> None:
    class Counted(dict[str, Document]):
        reads = 0

        def items(self) -> Any:
            Counted.reads += 1
            return super().items()

    data = example(corpus=Counted(CORPUS))
    before = data.fingerprint()
    assert Counted.reads == 1
    assert data.fingerprint() == before == example().fingerprint() and Counted.reads == 1
    assert replace(data, relevant_from=2).fingerprint() != before == replace(data).fingerprint()


def test_equal_data_has_an_equal_fingerprint() -> None:
    assert example().fingerprint() == example().fingerprint()
    assert len(example().fingerprint()) == 64
    assert replace(example(), license="other", notes=("x",)).fingerprint() == example().fingerprint()
    reordered = example(splits=dict(reversed(example().splits.items())))
    assert reordered.fingerprint() == example().fingerprint()


def judged(**changes: int) -> dict[str, Split]:
    """The splits of the example with other grades of q1."""
    test = example().splits["test"]
    return {**example().splits, "test": Split({**test.qrels, "q1": {**test.qrels["q1"], **changes}}, test.candidates)}


def listed(candidates: list[str]) -> dict[str, Split]:
    """The splits of the example with other candidates of q1."""
    test = example().splits["test"]
    return {**example().splits, "test": Split(test.qrels, {**test.candidates, "q1": candidates})}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"queries": {**example().queries, "q1": "who dreams"}}, id="query text"),
        pytest.param({"corpus": {**CORPUS, "d1": Document("Cats", "sleep all night")}}, id="candidate's text"),
        pytest.param({"corpus": {**CORPUS, "d1": Document("Tigers", "sleep all day")}}, id="candidate's title"),
        pytest.param({"splits": judged(d1=3)}, id="grade of a candidate"),
        pytest.param({"splits": judged(d3=2)}, id="grade of another document"),
        pytest.param({"splits": judged(d4=0)}, id="one more judgement"),
        pytest.param({"splits": listed(["d1", "d2"])}, id="order of candidates"),
        pytest.param({"splits": listed(["d2", "d1", "d5"])}, id="one more candidate"),
        pytest.param({"splits": listed(["d2"])}, id="one candidate less"),
        pytest.param({"splits": {"test": example().splits["test"]}}, id="one split less"),
        pytest.param(
            {"splits": {"dev": example().splits["train"], "test": example().splits["test"]}}, id="name of a split"
        ),
        # The next four need a fix in ranking.py: training lists draw relevant documents that are no candidates, and
        # random ones from the whole corpus, and MRR counts from relevant_from; a resumed run has to notice changes.
        pytest.param({"corpus": {**CORPUS, "d3": Document("", "birds sing")}}, id="text of a judged document"),
        pytest.param({"corpus": {**CORPUS, "d5": Document("", "frogs croak")}}, id="text of any other document"),
        pytest.param({"corpus": {**CORPUS, "d6": Document("", "bees buzz")}}, id="one more document"),
        pytest.param({"relevant_from": 2}, id="threshold of relevance"),
        pytest.param({"language": "de"}, id="language"),
    ],
)
def test_fingerprint_changes_with_all_that_is_used(changes: dict[str, Any]) -> None:
    assert example(**changes).fingerprint() != example().fingerprint()
