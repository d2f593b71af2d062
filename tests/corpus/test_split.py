from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune.corpus.split import Side, Split

ROWS = st.dictionaries(
    st.sampled_from(["id", "customer", "q", "a"]),
    st.one_of(st.none(), st.integers(), st.text(max_size=8)),
)
SPLIT = Split(validation=0.3, evaluation=0.2, group="customer")


def sides(rows, split=SPLIT):
    return [split.side(row) for row in rows]


@given(st.lists(ROWS), st.lists(ROWS), st.randoms())
def test_a_side_depends_on_nothing_but_the_row(rows, more, chance):
    before = sides(rows)
    mixed = [*rows, *more]
    chance.shuffle(mixed)
    after = dict(zip(map(repr, mixed), sides(mixed), strict=True))

    assert [after[repr(row)] for row in rows] == before
    assert sides(rows, Split(validation=0.3, evaluation=0.2, group="customer")) == before


@given(ROWS, ROWS, st.one_of(st.integers(), st.text(min_size=1)))
def test_rows_of_one_group_stay_together_whatever_else_changes(one, other, customer):
    # Masking, for one, changes a record; the row as read, and its group, are what they were.
    assert SPLIT.side({**one, "customer": customer}) == SPLIT.side({**other, "customer": customer})
    assert SPLIT.side({**one, "customer": customer}) == SPLIT.side({"customer": str(customer)})


@given(ROWS)
def test_the_order_of_keys_does_not_matter(row):
    assert SPLIT.side(dict(reversed(row.items()))) == SPLIT.side(row)


@given(ROWS, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_share_only_adds_to_what_is_held_out(row, share, more):
    small = Split(validation=share, evaluation=0.1).side(row)
    large = Split(validation=share + more, evaluation=0.1).side(row)
    assert large >= small
    assert (large is Side.EVALUATION) == (small is Side.EVALUATION)


@given(ROWS)
def test_shares_of_nothing_and_of_all(row):
    assert Split(validation=0, evaluation=0).side(row) is Side.TRAIN
    assert Split(validation=1, evaluation=0).side(row) is Side.VALIDATION
    assert Split(validation=0, evaluation=1).side(row) is Side.EVALUATION


@given(ROWS)
def test_positions_order_rows_as_sides_do(row):
    position = SPLIT.position(row)
    assert 0 <= position < 2**64
    assert SPLIT.side_at(position) is SPLIT.side(row)
    assert SPLIT.side_at(0) is Side.EVALUATION
    assert SPLIT.side_at(2**64 - 1) is Side.TRAIN


def test_shares_are_what_was_asked_for():
    split = Split(validation=0.3, evaluation=0.2)
    found = [split.side({"id": number}) for number in range(20_000)]
    assert abs(found.count(Side.VALIDATION) / 20_000 - 0.3) < 0.02
    assert abs(found.count(Side.EVALUATION) / 20_000 - 0.2) < 0.02


def test_a_row_has_had_its_side_since_the_first_version():
    split = Split(validation=0.5, evaluation=0.0)
    assert [split.position({"id": n}) >> 48 for n in range(4)] == [31115, 7844, 15463, 11229]
