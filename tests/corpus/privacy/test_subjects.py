"""Subjects: found by any of their values, and kept out by hashes alone."""

from __future__ import annotations

import pickle

import pytest

from finetune import records
from finetune.corpus.privacy import Traces, load_exclusions, provide_key
from finetune.corpus.privacy.subjects import EXCLUDED
from finetune.errors import UsageError

KEY = b"k" * 32
HELD = [
    ("zoe.canari@acme.fr", "Mail ZOE.Canari@ACME.fr !"),
    ("Zoé Lefèvre", "Merci, ZOE LEFEVRE"),
    ("Zoé Lefèvre", "Lefèvre, Zoé"),
    ("06 12 34 56 78", "au +33 (0)6.12.34.56.78"),
    ("FR76 3000 6000 0112 3456 7890 189", "iban fr7630006000011234567890189"),
    ("C-48213", "dossier c-48213"),
    ("zoe.canari@acme.fr", '{"who": {"zoe.canari@acme.fr": 1}}'),
    ("Zoé", '{"who": "Zo\\u00e9"}'),
]


@pytest.mark.parametrize(("value", "text"), HELD)
def test_a_subject_is_found_however_it_is_written(value, text):
    assert Traces.of([value]).found_in({"text": text})


@pytest.mark.parametrize(
    "text", ["zoe.canaris@acme.fr", "Zoé Le Fèvre", "06 12 34 56 79", "C-482134"]
)
def test_another_subject_is_not_found(text):
    assert not Traces.of([value for value, _ in HELD[:6]]).found_in([text])


def test_a_value_that_is_in_every_text_is_refused():
    with pytest.raises(UsageError):
        Traces.of(["42"])


@pytest.mark.parametrize(("value", "text"), HELD)
def test_excluded_subjects_are_known_by_hashes_alone(tmp_path, value, text):
    key = provide_key(tmp_path)
    assert load_exclusions(key, tmp_path).fingerprint is None
    first = load_exclusions(key, tmp_path).add([value], tmp_path)
    written = (tmp_path / EXCLUDED).read_bytes()
    again = pickle.loads(pickle.dumps(load_exclusions(key, tmp_path)))
    assert again.holds(records.TextRecord(text=text))
    assert again.holds(records.TextRecord(text="x"), [text])
    assert not again.holds(records.TextRecord(text="Bonjour, 06 12 34 56 79"))
    assert again.fingerprint == first.fingerprint
    for word in ("canari", "lefevre", "612345678", "48213", "76300"):
        assert word.encode() not in written.lower()
    assert again.add([value], tmp_path).fingerprint == first.fingerprint
    assert again.add(["another@acme.fr"], tmp_path).fingerprint != first.fingerprint


def test_a_list_of_another_key_is_refused(tmp_path):
    load_exclusions(KEY, tmp_path).add(["zoe@acme.fr"], tmp_path)
    with pytest.raises(UsageError):
        load_exclusions(b"o" * 32, tmp_path)
    (tmp_path / EXCLUDED).write_text('{"key": 1}')
    with pytest.raises(UsageError):
        load_exclusions(KEY, tmp_path)
