"""Near-duplicate removal of 100,000 generated records, beside datasketch's MinHashLSH.

    python -m pip install "datasketch>=2"
    python benchmarks/near_duplicates.py              # one to two minutes on one core, 1.5 GB
    python benchmarks/near_duplicates.py 20000        # fewer records

Both get the same records, the same words and the same sequences of three words, in one process.
Times are CPU seconds, from records to decisions. datasketch is used as its documentation shows
(`MinHash.generator`, 128 permutations, its own choice of bands for the threshold). The exact
Jaccard index of every pair that either names, and of every planted pair, is computed from the
sequences themselves.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
THRESHOLD = 0.8
BATCH = 128
EDITED = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)  # shares of the words
EDGES = (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)


def make_records(count):
    """Return chat records, and the pairs that were planted: a record and its edited copy."""
    from finetune.records import from_object

    chance = random.Random(0)
    words = [make_word(chance) for _ in range(30_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    texts, planted = [], []
    while len(texts) < count:
        text = chance.choices(words, cum_weights=weights, k=chance.randint(60, 300))
        texts.append(text)
        first = len(texts) - 1
        for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
            if len(texts) == count:
                break
            copy, share = list(text), chance.choice(EDITED)
            for place in chance.sample(range(len(copy)), max(1, round(share * len(copy)))):
                copy[place] = chance.choice(words)
            planted.append((first, len(texts)))
            texts.append(copy)
    records = [
        from_object(
            "chat",
            {
                "messages": [
                    {"role": "user", "content": " ".join(text[:30])},
                    {"role": "assistant", "content": " ".join(text[30:])},
                ]
            },
        )
        for text in texts
    ]
    return records, planted


def make_word(chance):
    return "".join(chance.choices("etaoinshrdlucmfwypvbgkqjxzé", k=chance.randint(2, 9)))


def run_ours(records):
    """Return CPU seconds to sign and to settle, and record → kept record."""
    from finetune.corpus.clean import Facts, settle, sign
    from finetune.corpus.split import Side
    from finetune.recipe.tree import Clean

    start = time.process_time()
    facts = Facts()
    for at in range(0, len(records), BATCH):
        for signature in sign(records[at : at + BATCH]):
            facts.add(Side.TRAIN, 0, 0, None, signature)
    signed = time.process_time()
    outcome = settle(facts, Clean(deduplicate="near", near=THRESHOLD))
    kept = {removal.record: removal.kept for removal in outcome.removals}
    return signed - start, time.process_time() - signed, kept


def run_datasketch(records):
    """Return CPU seconds to make sequences and to do the rest, and the pairs it names."""
    from datasketch import MinHash, MinHashLSH

    start = time.process_time()
    sets = [sequences_of(record) for record in records]
    made = time.process_time()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    pairs = []
    for number, sketch in enumerate(MinHash.generator(sets, num_perm=128)):
        pairs += [(other, number) for other in index.query(sketch)]
        index.insert(number, sketch)
    return made - start, time.process_time() - made, pairs


def sequences_of(record):
    from finetune.corpus.clean.near import WORDS
    from finetune.corpus.clean.words import fold_record

    words = fold_record(record).split()
    return {b" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


def jaccard(records, pairs):
    """Return the exact index of each pair."""
    found = {}
    for one, other in pairs:
        first, second = sequences_of(records[one]), sequences_of(records[other])
        found[one, other] = len(first & second) / len(first | second)
    return found


def share(part, whole):
    return f"{part / whole:.4f} ({part:,} of {whole:,})" if whole else "-"


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    records, planted = make_records(count)
    run_ours(records[:1000])  # imports, tables
    run_datasketch(records[:1000])
    print(f"{count:,} records, {len(planted):,} planted pairs, threshold {THRESHOLD}")
    signing, settling, kept = run_ours(records)
    shingling, sketching, pairs = run_datasketch(records)
    ours, theirs = signing + settling, shingling + sketching
    print(f"ours        {ours:7.1f} s: {signing:.1f} sign, {settling:.1f} settle")
    print(f"datasketch  {theirs:7.1f} s: {shingling:.1f} sequences, {sketching:.1f} sketch, query")
    print(
        f"ratio       {theirs / ours:7.1f} (its sketches and queries alone / all of ours: "
        f"{sketching / ours:.1f})"
    )
    exact = jaccard(records, {*pairs, *planted, *((k, r) for r, k in kept.items())})
    true_pairs = [pair for pair in pairs if exact[pair] >= THRESHOLD]
    broken = [pair for pair in true_pairs if pair[0] in kept or pair[1] in kept]
    raw = [pair for pair in pairs if pair[0] in kept or pair[1] in kept]
    print(f"recall of its pairs that are near    {share(len(broken), len(true_pairs))}")
    print(f"recall of all pairs that it names    {share(len(raw), len(pairs))}")
    print(f"precision of its pairs               {share(len(true_pairs), len(pairs))}")
    right = [record for record, one in kept.items() if exact[one, record] >= THRESHOLD]
    close = [record for record, one in kept.items() if exact[one, record] >= THRESHOLD - 0.05]
    print(f"precision of ours                    {share(len(right), len(kept))}")
    print(f"  within 0.05 of the threshold       {share(len(close), len(kept))}")
    named = {record for _, record in pairs}
    print("planted pairs, by exact index: share removed, ours and datasketch's")
    for low, high in itertools.pairwise(EDGES):
        inside = [p for p in planted if low <= exact[p] < high or exact[p] == high == 1]
        if inside:
            mine = sum(one in kept or other in kept for one, other in inside)
            its = sum(one in named or other in named for one, other in inside)
            print(
                f"  {low:.2f}-{high:.2f} {len(inside):7,}  {mine / len(inside):.3f}"
                f"  {its / len(inside):.3f}"
            )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
