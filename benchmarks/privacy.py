"""How much personal data is found, how much that is none, and how fast.

    python benchmarks/privacy.py [COUNT]

French, German and Portuguese texts are generated with labelled spans, in the forms in which people
write numbers; clean texts are full of order numbers of 8 to 16 digits. A span counts as found when
it is found whole and as its kind. Names are those of the known columns only.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from finetune.corpus.privacy import Privacy
from finetune.corpus.privacy.detectors import find
from finetune.records import TextRecord
from tests.corpus.privacy.texts import Texts, recall, tickets

KEY = b"k" * 32


def show_recall(language, count):
    figures, _ = recall(language, count, find, seed=101)
    for kind, (found, whole) in figures.items():
        print(f"{language}  {kind:<10} recall {found / whole:.4f}  ({found:,} of {whole:,})")


def show_false(language, count):
    texts = Texts(language, seed=102)
    wrong = [bool(find(texts.clean())) for _ in range(count)]
    print(f"{language}  {sum(wrong)} of {count:,} clean texts with a false redaction")


def show_names(language, count):
    found = whole = 0
    for name, text, spans in tickets(language, count, seed=103):
        record = TextRecord(text=text)
        Privacy("mask").apply(record, [name])
        found += sum(text[start:end] not in record.text for start, end in spans)
        whole += len(spans)
    print(f"{language}  known name recall {found / whole:.4f}  ({found:,} of {whole:,})")


def show_speed(name, texts, mode, known=()):
    privacy = Privacy(mode, KEY)
    given = [TextRecord(text=text) for text in texts]
    started = time.process_time()
    for record in given:
        privacy.apply(record, known)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{size / (time.process_time() - started):8.1f} MB/s  {name}, {mode}")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    for language in ("fr", "de", "pt"):
        show_recall(language, count)
        show_false(language, count)
        show_names(language, count)
    sentence = "Bonjour, le produit reçu hier ne fonctionne pas comme prévu, merci de votre aide. "
    plain, few = sentence * 12, (sentence * 3 + "Le 3 mars 2024, 12 pièces à 45 %. ") * 4
    texts = Texts("fr", seed=104)
    for mode in ("report", "pseudonymize"):
        show_speed("texts without a digit", [plain] * count, mode)
        show_speed("texts with a few digits", [few] * count, mode)
        show_speed("texts full of order numbers", [texts.clean() for _ in range(count)], mode)
        show_speed("two values in each line", [texts.labelled().text for _ in range(count)], mode)
    show_speed("texts without a digit, known name", [plain] * count, "mask", ["Hélène Lefèvre"])


if __name__ == "__main__":
    main()
