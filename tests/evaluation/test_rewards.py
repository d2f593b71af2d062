import pytest

from finetune.evaluation.rewards import Side, rank, reward

NONE = Side(0.0, 0.0)


def test_of_a_pair_the_likelier_answer_is_ranked_first():
    pairs = [
        (Side(3.0, 2), Side(4.0, 2)),
        (Side(4.0, 2), Side(3.0, 2)),
        (Side(5.0, 9), Side(5.0, 1)),
    ]
    assert rank(pairs) == [1.0, 0.0, 0.5]


def test_the_reward_is_what_an_answer_gained():
    before = [(Side(9.0, 3), Side(5.0, 3)), (Side(9.0, 3), Side(5.0, 3))]
    after = [(Side(7.0, 3), Side(4.0, 3)), (Side(9.0, 3), Side(3.0, 3))]
    accuracy, margin = reward(before, after, beta=0.5)
    assert rank(after) == [0.0, 0.0]  # still the less likely one, though it gained more
    assert accuracy == [1.0, 0.0]
    assert margin == pytest.approx([0.5 * (2 - 1), 0.5 * (0 - 2)])


def test_ratings_are_compared_across_prompts():
    before = [
        (Side(8.0, 4), NONE),
        (Side(6.0, 2), NONE),
        (NONE, Side(9.0, 3)),
        (NONE, Side(2.0, 1)),
    ]
    after = [
        (Side(6.0, 4), NONE),  # +2, and -1.5 a token
        (Side(6.0, 2), NONE),  # 0, and -3 a token
        (NONE, Side(8.0, 3)),  # +1, and -2.67 a token
        (NONE, Side(2.0, 1)),  # 0, and -2 a token
    ]
    assert rank(after) == [1.0, 0.0]
    accuracy, margin = reward(before, after, beta=1.0)
    assert accuracy == [1.0, 0.25]  # an equal one counts half
    assert margin == pytest.approx([2 - 0.5, 0 - 0.5])


def test_ratings_of_one_kind_compare_nothing():
    good = [(Side(8.0, 4), NONE)]
    assert rank(good) == []
    assert reward(good, good, beta=1.0) == ([], [])
