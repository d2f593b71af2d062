import itertools
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finetune.backends.local.schedule import plan_steps
from finetune.errors import RecipeError

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def seen(steps):
    return Counter(i for step in steps for group in step.micro_batches for i in group)


@given(LENGTHS, st.integers(1, 3), st.integers(1, 120), st.integers(0, 3))
def test_every_sample_is_seen_once_an_epoch(lengths, epochs, batch_tokens, seed):
    steps = plan_steps(lengths, epochs=epochs, batch_tokens=batch_tokens, seed=seed)
    assert seen(steps) == dict.fromkeys(range(len(lengths)), epochs)
    assert sum(step.tokens for step in steps) == epochs * sum(lengths)
    assert steps[-1].epoch == epochs
    assert [step.epoch for step in steps] == sorted(step.epoch for step in steps)


@given(LENGTHS, st.integers(1, 120), st.integers(1, 120))
def test_steps_and_micro_batches_keep_their_bounds_or_hold_one_sample(lengths, batch, micro):
    for step in plan_steps(lengths, epochs=1, batch_tokens=batch, micro_batch_tokens=micro):
        indices = [i for group in step.micro_batches for i in group]
        assert step.tokens == sum(lengths[i] for i in indices)
        assert step.tokens <= batch or len(indices) == 1
        for group in step.micro_batches:
            assert sum(lengths[i] for i in group) <= micro or len(group) == 1


@given(LENGTHS, st.integers(1, 120))
def test_a_step_is_filled_before_the_next_begins(lengths, batch):
    steps = plan_steps(lengths, epochs=1, batch_tokens=batch)
    for step, following in itertools.pairwise(steps):
        # within a step the order is gone: the next one's first sample is among these
        indices = [i for group in following.micro_batches for i in group]
        assert step.tokens + max(lengths[i] for i in indices) > batch


def test_micro_batches_are_balanced():
    (step,) = plan_steps([30, 10, 10, 10] * 4, epochs=1, batch_tokens=240, micro_batch_tokens=120)
    loads = [sum([30, 10, 10, 10][i % 4] for i in group) for group in step.micro_batches]
    assert loads == [120, 120]


@given(LENGTHS, st.integers(1, 12), st.integers(1, 120))
def test_steps_are_counted_exactly(lengths, count, batch):
    steps = plan_steps(lengths, steps=count, batch_tokens=batch)
    assert len(steps) == count
    times = seen(steps).values()
    assert max(times) - min([*times, 0] if len(times) < len(lengths) else times) <= 2


def test_half_a_weight_is_half_of_the_samples_each_epoch_in_turn():
    lengths, weights = [1] * 30, [0.5] * 10 + [1.0] * 10 + [2.0] * 10
    for seed in range(5):
        one = seen(plan_steps(lengths, weights, epochs=1, batch_tokens=7, seed=seed))
        two = seen(plan_steps(lengths, weights, epochs=2, batch_tokens=7, seed=seed))
        assert sum(one[i] for i in range(10)) == 5
        assert [two[i] for i in range(30)] == [1] * 10 + [2] * 10 + [4] * 10


@given(st.lists(st.sampled_from([0.1, 0.3, 1.0, 1.7, 3.0]), min_size=1, max_size=30))
def test_over_ten_epochs_each_sample_is_seen_by_its_weight(weights):
    times = seen(plan_steps([1] * len(weights), weights, epochs=10, batch_tokens=5))
    for index, weight in enumerate(weights):
        assert abs(times[index] - 10 * weight) <= 1


def test_part_of_an_epoch():
    steps = plan_steps([10] * 20, epochs=1.5, batch_tokens=50)
    assert sum(step.tokens for step in steps) == 300
    assert steps[-1].epoch == 1.5
    assert sum(seen(plan_steps([10] * 20, epochs=0.01, batch_tokens=50)).values()) == 1


def test_the_order_depends_on_the_seed_and_on_nothing_else():
    lengths = list(range(1, 60))
    first = plan_steps(lengths, epochs=2, batch_tokens=100, seed=1)
    assert first == plan_steps(lengths, epochs=2, batch_tokens=100, seed=1)
    assert first != plan_steps(lengths, epochs=2, batch_tokens=100, seed=2)
    assert seen(first[:20]) != seen(first[20:])


def test_micro_batches_change_no_step():
    lengths = [7, 40, 3, 25, 11] * 10
    whole = plan_steps(lengths, epochs=1, batch_tokens=90)
    split = plan_steps(lengths, epochs=1, batch_tokens=90, micro_batch_tokens=20)
    assert [seen([a]) for a in whole] == [seen([b]) for b in split]


def test_three_epochs_where_nothing_is_said():
    assert plan_steps([5], batch_tokens=5)[-1].epoch == 3


@pytest.mark.parametrize(
    ("lengths", "weights", "more"),
    [([], None, {}), ([1], [0.0], {}), ([1], None, {"epochs": 1, "steps": 1})],
)
def test_what_cannot_be_planned(lengths, weights, more):
    with pytest.raises(ValueError, match=r"samples|either"):
        plan_steps(lengths, weights, batch_tokens=10, **more)


@pytest.mark.parametrize(
    ("weight", "batch_tokens", "more", "wanted"),
    [
        (1.0, 10, {"epochs": 1e12}, "training.epochs: makes about 3e"),
        (1.0, 10, {"steps": 10**10}, "training.steps: makes about 1e"),
        (1.0, 10**21, {"steps": 10}, "training.steps: makes about"),
        (1e12, 10, {"epochs": 1e-9}, "training.epochs: makes about"),
        (1e-12, 10, {"steps": 2}, "training.steps: makes about"),
        (1e-12, 10, {"epochs": 2}, "data.train.weight: so small"),
    ],
)
def test_what_would_be_planned_for_ever_is_refused(weight, batch_tokens, more, wanted):
    with pytest.raises(RecipeError) as caught:
        plan_steps([10, 10, 10], [weight] * 3, batch_tokens=batch_tokens, **more)
    assert str(caught.value).startswith(wanted)


@pytest.mark.parametrize("batch_tokens", [1, 10**21])
def test_steps_of_one_token_or_of_everything_can_be_planned(batch_tokens):
    steps = plan_steps([2000] * 600, epochs=1, batch_tokens=batch_tokens)
    assert len(steps) == (600 if batch_tokens == 1 else 1)


@given(st.integers(1, 20), st.integers(1, 4), st.integers(1, 5), st.sampled_from([None, 0.5, 2.0]))
def test_each_epoch_takes_its_own_pass(count, passes, epochs, weight):
    assume(count > 1 or epochs > 1 or weight != 0.5)  # one record, seen every other epoch
    lengths = [number % 7 + 1 for number in range(count * passes)]
    ranges = [range(start, start + count) for start in range(0, len(lengths), count)]
    weights = [weight] * len(lengths) if weight else None
    steps = plan_steps(lengths, weights, ranges, epochs=epochs, batch_tokens=20)
    times = seen(steps)

    for number, members in enumerate(ranges):
        visits = len(range(number, epochs, passes))
        found = [times[index] for index in members]
        if weight is None:
            assert found == [visits] * count
        else:
            assert sum(found) <= weight * visits * count + visits * 0.5 + 1
    assert steps[-1].epoch == pytest.approx(epochs, abs=1)
