from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.corpus.clean import Facts, labels_of, settle, sign
from finetune.corpus.split import Side
from finetune.errors import UsageError
from finetune.recipe.tree import Clean
from finetune.records import from_object

TEXTS = ["a b c d e f", "a b c d e f", "g h i j", "k l m", "n o p q r s t u v w x y z"]
SIGNATURES = sign([from_object("text", {"text": text}) for text in TEXTS])
RECORDS = st.lists(
    st.tuples(
        st.sampled_from([Side.TRAIN, Side.TRAIN, Side.VALIDATION, Side.EVALUATION]),
        st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)),  # position
        st.integers(0, 2),  # source
        st.sampled_from("abc"),  # label
        st.integers(0, len(TEXTS) - 1),
    ),
    max_size=40,
)
CLEAN = st.builds(
    Clean,
    deduplicate=st.sampled_from(["near", "exact", "off"]),
    balance=st.sampled_from(["off", "downsample"]),
)
CAPS = st.dictionaries(st.integers(0, 2), st.integers(1, 5))


def note(records):
    facts = Facts()
    for side, position, source, label, text in records:
        labels = msgspec.json.encode({"topic": label})
        facts.add(side, position, source, labels, SIGNATURES[text])
    return facts


def left_of(records, settlement):
    gone = {removal.record for removal in settlement.removals}
    return [record for number, record in enumerate(records) if number not in gone]


@given(RECORDS, CLEAN, CAPS)
def test_each_record_goes_at_most_once_for_a_reason_that_fits(records, clean, caps):
    settlement = settle(note(records), clean, caps)
    gone = [removal.record for removal in settlement.removals]
    assert gone == sorted(set(gone))
    for record, rule, kept in settlement.removals:
        side, _, source, label, text = records[record]
        if rule in ("max-records", "balance"):
            assert side is Side.TRAIN
            assert kept is None
            assert rule == "balance" or source in caps
            continue
        assert clean.deduplicate == "near"
        other = records[kept]
        assert SIGNATURES[other[4]] == SIGNATURES[text]
        assert other[0] >= side
        assert rule == ("near-duplicate" if other[0] == side else "near-duplicate-of-validation")
        assert other[0] > side or other[3] == label
        # What it names was not removed as a near duplicate itself.
        assert not any(r == kept and "near" in why for r, why, _ in settlement.removals)


@given(RECORDS, CLEAN, CAPS)
def test_what_is_left_obeys_and_settling_it_again_removes_nothing(records, clean, caps):
    left = left_of(records, settle(note(records), clean, caps))
    trained = [record for record in left if record[0] is Side.TRAIN]
    for source, most in caps.items():
        assert sum(record[2] == source for record in trained) <= most
    if clean.balance == "downsample":
        assert len(set(Counter(record[3] for record in trained).values())) <= 1
    if clean.deduplicate == "near":
        held_out = {(r[0], SIGNATURES[r[4]]) for r in left if r[0] > Side.TRAIN}
        assert not {SIGNATURES[r[4]] for r in trained} & {text for _, text in held_out}
    assert settle(note(left), clean, caps).removals == []


@given(RECORDS, st.integers(1, 5))
def test_a_cap_keeps_the_lowest_hashes_and_nothing_else_moves_them(records, most):
    exact = Clean()
    removals = settle(note(records), exact, {0: most}).removals
    of_source = [n for n, r in enumerate(records) if r[0] is Side.TRAIN and r[2] == 0]
    ranked = sorted(of_source, key=lambda n: (records[n][1], n))
    assert [r.record for r in removals] == sorted(ranked[most:])

    others = [r for r in records if r[2] != 0 or r[0] is not Side.TRAIN]
    alone = settle(note([records[n] for n in of_source]), exact, {0: most}).removals
    assert [records[r.record] for r in removals] == [records[of_source[r.record]] for r in alone]
    assert settle(note(others), exact, {0: most}).removals == []


@given(RECORDS, CLEAN, CAPS, st.data())
def test_what_is_gone_already_counts_for_nothing(records, clean, caps, data):
    gone = data.draw(st.sets(st.integers(0, len(records) - 1))) if records else set()
    left = [n for n in range(len(records)) if n not in gone]
    some = settle(note(records), clean, caps, gone)
    fresh = settle(note([records[n] for n in left]), clean, caps)
    assert [(r.record, r.rule) for r in some.removals] == [
        (left[r.record], r.rule) for r in fresh.removals
    ]
    assert some.warnings == fresh.warnings


def test_steps_follow_each_other():
    # Two near duplicates, a cap of 3 on what they leave, then classes of one record each.
    rows = [(1, "a", 0), (2, "a", 1), (3, "a", 2), (4, "b", 3), (5, "b", 4)]
    records = [(Side.TRAIN, position, 0, label, text) for position, label, text in rows]
    clean = Clean(deduplicate="near", balance="downsample")
    assert [tuple(r) for r in settle(note(records), clean, {0: 3}).removals] == [
        (1, "near-duplicate", 0),
        (2, "balance", None),
        (4, "max-records", None),
    ]


def test_labels_that_validation_misses_are_named():
    rows = [(Side.TRAIN, "abc"), (Side.VALIDATION, "b"), (Side.EVALUATION, "ac")]
    records = [(side, 0, 0, label, 0) for side, labels in rows for label in labels]
    (warned,) = settle(note(records), Clean()).warnings
    assert warned == ("label-not-validated", "`topic`: no validation record has `a`, `c`")
    assert settle(note(records[:3]), Clean()).warnings == []  # no validation at all


@pytest.mark.parametrize(
    "labels", [None, {"topic": "a", "tone": "b"}, {"topic": ["a", "b"]}, {"topic": []}]
)
def test_classes_are_balanced_only_where_each_record_has_one(labels):
    facts = Facts()
    facts.add(Side.TRAIN, 0, 0, None if labels is None else msgspec.json.encode(labels))
    with pytest.raises(UsageError, match=r"data.clean.balance: a record has \d labels?: classes"):
        settle(facts, Clean(balance="downsample"))


def test_nothing_settles_to_nothing():
    assert settle(Facts(), Clean(deduplicate="near", balance="downsample"), {0: 1}) == ([], [])


def test_labels_are_told_from_records():
    classifier = {"text": "T", "labels": {"b": ["y", "x"], "a": "z"}}
    assert labels_of(from_object("classifier", classifier)) == b'{"a":"z","b":["y","x"]}'
    assert labels_of(from_object("text", {"text": "T"})) is None
