"""Images beside the data: read into records, and never from anywhere else."""

from __future__ import annotations

import base64
import json
import os

import pytest

from finetune.checks.targets import find_target
from finetune.converters import ConvertError
from finetune.converters.images import data_url
from finetune.corpus import Reading, convert_files, prepare
from finetune.corpus.images import MAX_BYTES
from finetune.recipe import Recipe

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
KINDS = {
    "png": PNG,
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(20),
    "gif": b"GIF89a" + bytes(20),
    "webp": b"RIFF\0\0\0\0WEBP" + bytes(20),
}


@pytest.fixture
def convert(tmp_path):
    """Return what rows give: the records, and the rules of the rejected."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(PNG)
    (folder / "b.jpg").write_bytes(KINDS["jpeg"])  # named for one thing, content of another

    def run(*rows):
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines, rejected = [], []
        done = convert_files(
            [(path.name, open(path, "rb"))],  # noqa: SIM115 (the reader closes it)
            lines.append,
            Reading(),
            target=find_target("platform"),
            reject=lambda finding: rejected.append(finding.rule),
        )
        assert done.account.unused == {}
        return [json.loads(line) for line in b"".join(lines).splitlines()], rejected

    return run


B64 = base64.b64encode(PNG).decode()


def url(kind):
    return f"data:image/{kind};base64,{base64.b64encode(KINDS[kind]).decode()}"


def image(kind):
    return {"type": "image_url", "image_url": url(kind)}


def sharegpt(text, images, answer="A cat."):
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "images": images}


def test_images_of_llama_factory_come_into_their_places(convert):
    made, rejected = convert(
        sharegpt("<image>\nWhat is it?", ["a.png"]),
        sharegpt("Is <image> like <image>?", ["./b.jpg", "https://example.org/c.png"]),
        sharegpt("No image.", []),
    )
    assert rejected == []
    text = {"type": "text", "text": "What is it?"}
    assert made[0]["messages"][0]["content"] == [image("png"), text]
    assert made[1]["messages"][0]["content"] == [
        {"type": "text", "text": "Is "},
        image("jpeg"),
        {"type": "text", "text": " like "},
        {"type": "image_url", "image_url": "https://example.org/c.png"},
        {"type": "text", "text": "?"},
    ]
    assert made[2]["messages"][0]["content"] == "No image."


def test_one_image_as_llava_has_it(convert):
    row = sharegpt("<image>\nWhat?", None) | {"image": "a.png"}
    del row["images"]
    made, rejected = convert(row)
    assert made[0]["messages"][0]["content"][0] == image("png")
    assert rejected == []


@pytest.mark.parametrize(
    ("content", "images"),
    [
        ([{"type": "image_path", "content": "a.png"}, {"type": "text", "content": "What?"}], None),
        (
            [{"type": "image_url", "content": url("png")}, {"type": "text", "content": "What?"}],
            None,
        ),
        ([{"type": "image_binary", "content": B64}, {"type": "text", "content": "What?"}], None),
        ([{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}], None),
        ([{"type": "image"}, {"type": "text", "text": "What?"}], ["a.png"]),
        ([{"type": "image"}, {"type": "text", "text": "What?"}], [{"bytes": B64, "path": None}]),
        ([{"type": "image_url", "image_url": "a.png"}, {"type": "text", "text": "What?"}], None),
        ("<image>\nWhat?", ["a.png"]),
    ],
    ids=["oumi path", "oumi url", "oumi binary", "qwen", "trl", "bytes", "openai", "llama-factory"],
)
def test_images_of_messages(convert, content, images):
    row = {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A"}]
    }
    made, rejected = convert(row | ({} if images is None else {"images": images}))
    assert rejected == []
    text = {"type": "text", "text": "What?"}
    assert made[0]["messages"][0]["content"] == [image("png"), text]


def test_a_place_without_an_image_rejects_the_row(convert):
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    row = {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A"}]
    }
    assert convert(row) == ([], ["image-count"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_is_told_by_the_bytes(kind):
    assert data_url(KINDS[kind], "x") == url(kind)


@pytest.mark.parametrize(
    ("text", "images", "rule"),
    [
        ("<image> <image>", ["a.png"], "image-count"),
        ("No place", ["a.png"], "image-count"),
        ("<image>", [], "image-count"),
        ("<image>", [7], "type"),
        ("<image>", [{"bytes": "no base64!"}], "image-type"),
        ("<image>", [{"bytes": base64.b64encode(b"BM").decode()}], "image-type"),
        ("<image>", ["gone.png"], "image-missing"),
        ("<image>", ["rows.jsonl"], "image-type"),
        ("<image>", ["../secret.png"], "image-path"),
        ("<image>", ["x/../a.png"], "image-path"),
        ("<image>", ["/etc/hostname"], "image-path"),
        ("<image>", ["file:///etc/hostname"], "image-path"),
        ("<image>", ["ftp://example.org/a.png"], "image-path"),
        ("<image>", ["link.png"], "image-path"),
        ("<image>", ["linked/a.png"], "image-path"),
        ("<image>", ["a.png\0"], "image-path"),
        ("<image>", ["large.png"], "image-too-large"),
    ],
)
def test_other_images_reject_their_row(convert, tmp_path, text, images, rule):
    (tmp_path / "secret.png").write_bytes(PNG)
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "large.png").write_bytes(PNG)
    os.truncate(tmp_path / "data" / "large.png", MAX_BYTES + 1)
    made, rejected = convert(sharegpt(text, images), sharegpt("Hi", []))
    assert rejected == [rule]
    assert len(made) == 1


def test_images_of_a_record_are_bounded_together(convert, tmp_path):
    for name in "xy":
        (tmp_path / "data" / name).write_bytes(PNG)
        os.truncate(tmp_path / "data" / name, MAX_BYTES - 1)
    assert convert(sharegpt("<image><image>", ["x", "y"]))[1] == ["image-too-large"]


def test_an_answer_has_no_image(convert):
    made, rejected = convert(sharegpt("Draw", ["a.png"], answer="<image>"))
    assert (made, rejected) == ([], ["image-count"])


def test_another_image_makes_another_dataset(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps(sharegpt("<image>What?", ["a.png"])) + "\n")
    recipe = Recipe.model_validate(
        {
            "model": "ministral-3-8b",
            "data": {"train": [{"path": str(folder / "rows.jsonl")}], "validation": 0.0},
            "backend": "platform",
        }
    )

    def content():
        dataset = prepare(recipe, folder=tmp_path / "d")
        (line,) = dataset.train[0].path.read_text().splitlines()
        return dataset.digest, json.loads(line)["messages"][0]["content"][0]

    (folder / "a.png").write_bytes(PNG)
    first = content()
    assert first[1] == image("png")
    (folder / "a.png").write_bytes(KINDS["gif"])
    second = content()
    assert second[1] == image("gif")
    assert second[0] != first[0]


def test_bytes_that_are_no_image_are_not_shown():
    with pytest.raises(ConvertError) as caught:
        data_url(b"Ann Smith", "images[0]")
    assert "Smith" not in str(caught.value)
