import json
import shutil

import pytest

from finetune.backends.local.checkpoints import NEEDED, commit, find_whole
from finetune.errors import RunError

IDENTITY = {"dataset": "abc", "training.learning_rate": 0.1}


def save(folder, step, *, keep=2, more=()):
    saved = folder / ".saving" / f"checkpoint-{step}"
    saved.mkdir(parents=True)
    for name in (*NEEDED, *more):
        (saved / name).write_bytes(f"{name} of step {step}".encode() * 20)
    return commit(saved, step, identity=IDENTITY, micro_batch_tokens=64, keep=keep)


@pytest.fixture
def two(folder):
    save(folder, 5)
    save(folder, 10)
    return folder


def test_the_newest_is_found_and_old_ones_go(two):
    save(two, 15)
    assert find_whole(two, IDENTITY) == (two / "step-15", 15, 64)
    assert sorted(p.name for p in two.glob("step-*")) == ["step-10", "step-15"]


def test_nothing_there(folder):
    assert find_whole(folder, IDENTITY) is None


def test_only_what_is_needed_is_kept(folder):
    kept = save(folder, 5, more=["training_args.bin", "README.md", "tekken.json", "scaler.pt"])
    assert {p.name for p in kept.folder.iterdir()} == {
        *NEEDED,
        "scaler.pt",
        "MANIFEST.json",
        "COMMITTED",
    }


@pytest.mark.parametrize("name", [*sorted(NEEDED), "MANIFEST.json", "COMMITTED"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_to_any_file_is_found(two, name, damage):
    path = two / "step-10" / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1] if name != "COMMITTED" else data[:-2])
    else:
        path.unlink()
    assert find_whole(two, IDENTITY) == (two / "step-5", 5, 64)
    assert (two / ".bad" / "step-10").is_dir()


def test_a_foreign_file_is_damage(two):
    (two / "step-10" / "training_args.bin").write_bytes(b"pickle")
    assert find_whole(two, IDENTITY) == (two / "step-5", 5, 64)


def test_all_damaged(two):
    for step in (5, 10):
        (two / f"step-{step}" / "COMMITTED").unlink()
    assert find_whole(two, IDENTITY) is None
    assert sorted(p.name for p in (two / ".bad").iterdir()) == ["step-10", "step-5"]


def test_the_same_step_is_damaged_twice(two):
    (two / "step-10" / "COMMITTED").unlink()
    find_whole(two, IDENTITY)
    save(two, 10)
    (two / "step-10" / "COMMITTED").unlink()
    assert find_whole(two, IDENTITY) == (two / "step-5", 5, 64)
    assert len(list((two / ".bad").iterdir())) == 2


def test_what_a_kill_left_unfinished_is_no_checkpoint(two):
    (two / ".saving" / "checkpoint-15").mkdir(parents=True)
    (two / "step-15").mkdir()
    assert find_whole(two, IDENTITY) == (two / "step-10", 10, 64)


def test_another_identity_is_refused_with_the_difference(two):
    with pytest.raises(RunError) as caught:
        find_whole(two, {"dataset": "abc", "training.learning_rate": 0.2, "seed": 1})
    assert "`training.learning_rate` was 0.1, is 0.2" in caught.value.message
    assert "`seed` was absent, is 1" in caught.value.message
    assert "dataset" not in caught.value.message.partition("another run:")[2]
    assert (two / "step-10").is_dir()


def test_an_edited_manifest_does_not_get_through(two):
    path = two / "step-10" / "MANIFEST.json"
    manifest = json.loads(path.read_bytes())
    manifest["identity"] = {}
    path.write_text(json.dumps(manifest))
    assert find_whole(two, {"dataset": "abc", "training.learning_rate": 0.1}).step == 5


def test_a_checkpoint_of_the_same_step_is_replaced(two):
    save(two, 10)
    assert find_whole(two, IDENTITY).step == 10
    shutil.rmtree(two / "step-10")
    assert find_whole(two, IDENTITY).step == 5
