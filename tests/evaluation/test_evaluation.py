"""`evaluate` on a tiny model with weights by chance: everything real but the knowledge."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from finetune import load_recipe, pipeline, prepare
from finetune.backends.local.quiet import quiet
from finetune.catalog import shipped_file
from finetune.errors import PlatformError, RunError, UsageError
from finetune.evaluation import evaluate
from finetune.runs import Run
from finetune.tokens import load_tokenizer
from tests.evaluation.server import longer, opinion, serve

ROOT = Path(__file__).parent.parent.parent
RECORDS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a Mistral of one layer and the v3 tokenizer."""
    with quiet():
        import mistral_common
        import torch
        from transformers import MistralConfig, MistralForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=32768, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=None,
        initializer_range=0.3,
    )  # fmt: skip
    with quiet():
        MistralForCausalLM(config).save_pretrained(folder)
    tokenizer = Path(mistral_common.__file__).parent / "data" / shipped_file("v3")
    shutil.copy(tokenizer, folder / "tokenizer.model.v3")
    return folder


@pytest.fixture
def make_run(model, tmp_path):
    def make_run(
        *, evaluation=0.5, validation=0.2, changed=True, limit="null", adapter=True, more="",
        method="sft", rows=None,
    ):  # fmt: skip
        rows = rows or [
            {"messages": [
                {"role": "user", "content": f"How much is {n} and {n}?"},
                {"role": "assistant", "content": json.dumps({"sum": 2 * n})},
            ]}
            for n in range(RECORDS)
        ]  # fmt: skip
        (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "sums.yaml").write_text(
            f"model: {model}\n"
            f"method: {method}\n"
            f"data: {{train: [{{path: sums.jsonl}}], validation: {validation}}}\n"
            f"evaluation: {{data: {evaluation}, max_new_tokens: 6, limit: {limit}{more}}}\n"
            "local: {dtype: float32}\n"
        )
        recipe = load_recipe(tmp_path / "sums.yaml")
        dataset = prepare(recipe, folder=tmp_path / "datasets")
        run = Run.create(
            tmp_path / "runs" / "sums-1", recipe, identity="0" * 16,
            dataset=dataset.folder, dataset_digest=dataset.digest,
        )  # fmt: skip
        if adapter:
            adapt(model, changed=changed).save_pretrained(run.adapter)
        return run

    return make_run


def adapt(model, *, changed):
    with quiet():
        import peft
        import torch
        from transformers import MistralForCausalLM

        torch.manual_seed(1)
        config = peft.LoraConfig(
            target_modules=["q_proj", "down_proj"], init_lora_weights=not changed
        )
        return peft.get_peft_model(MistralForCausalLM.from_pretrained(model), config)


def plain_loss(model, file):
    """Mean loss of the answers, one record at a time, from whole logits."""
    import torch

    tokenizer, total, count = load_tokenizer("v3"), 0.0, 0
    for line in file.read_bytes().splitlines():
        from finetune.records import decode

        (sample,) = tokenizer.encode(decode("chat", line))
        with torch.no_grad():
            logits = model(torch.tensor([sample.input_ids])).logits[0, :-1]
        labels = torch.tensor(sample.labels[1:])
        total += torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=-100, reduction="sum"
        ).item()
        count += int((labels != -100).sum())
    return total / count


def test_losses_are_those_of_whole_logits_and_files_follow_their_schema(make_run, model):
    run = make_run()
    held_out = run.dataset / "evaluation.jsonl"
    measures = evaluate(run)

    schema = json.loads((ROOT / "data_schemas" / "files" / "evaluation.schema.json").read_bytes())
    written = json.loads((run.folder / "evaluation.json").read_bytes())
    jsonschema.validate(written, schema)
    assert written == measures
    assert measures["split"] == "evaluation"
    assert measures["note"] == "general loss: on 32 questions of no dataset"
    assert measures["records"] == len(held_out.read_bytes().splitlines()) > 4

    tuned = adapt(model, changed=True).eval()
    assert measures["tuned"]["loss"]["value"] == pytest.approx(plain_loss(tuned, held_out), 1e-4)
    with tuned.disable_adapter():
        base = plain_loss(tuned, held_out)
    assert measures["base"]["loss"]["value"] == pytest.approx(base, 1e-4)
    assert base != pytest.approx(measures["tuned"]["loss"]["value"], 1e-3)
    for side in ("base", "tuned"):
        for score in measures[side].values():
            assert score["low"] <= score["value"] <= score["high"]
        for name, loss in measures[side]["loss"].items():
            assert measures[side]["perplexity"][name] == pytest.approx(math.exp(loss))
    assert measures["tuned"]["general_loss"]["value"] == pytest.approx(
        plain_loss(tuned, ROOT / "finetune" / "evaluation" / "general.jsonl"), 1e-4
    )
    assert measures["tuned"].keys() == {
        "loss", "perplexity", "general_loss", "exact_match", "json_valid", "field_accuracy",
        "field_f1",
    }  # fmt: skip


def log_probs(model, file):
    """The log-probability of each answer of each record, from whole logits, one at a time."""
    import torch

    from finetune.records import decode

    tokenizer, found = load_tokenizer("v3"), []
    for line in file.read_bytes().splitlines():
        kind = "rating" if b"completion" in line else "preference"
        values = []
        for sample in tokenizer.encode(decode(kind, line)):
            with torch.no_grad():
                logits = model(torch.tensor([sample.input_ids])).logits[0, :-1]
            labels = torch.tensor(sample.labels[1:])
            values.append(
                -torch.nn.functional.cross_entropy(
                    logits, labels, ignore_index=-100, reduction="sum"
                ).item()
            )
        found.append(values)
    return found


def test_pairs_are_measured_by_which_answer_is_likelier_and_which_gained(make_run, model):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"How much is {n} and {n}?"}],
            "chosen": [{"role": "assistant", "content": f"It is {2 * n}."}],
            "rejected": [{"role": "assistant", "content": f"Nobody knows what {n} is."}],
        }
        for n in range(RECORDS)
    ]
    run = make_run(method="dpo", rows=rows)
    held_out = run.dataset / "evaluation.jsonl"
    measures = evaluate(run)
    tuned = adapt(model, changed=True).eval()
    after = log_probs(tuned, held_out)
    with tuned.disable_adapter():
        before = log_probs(tuned, held_out)
    count = len(after)
    assert measures["records"] == count > 4
    gains = [(new[0] - old[0], new[1] - old[1]) for old, new in zip(before, after, strict=True)]
    for side, values in (("base", before), ("tuned", after)):
        share = sum(chosen > rejected for chosen, rejected in values) / count
        assert measures[side]["ranking_accuracy"]["value"] == pytest.approx(share)
    accuracy = sum(chosen > rejected for chosen, rejected in gains) / count
    margin = sum(0.1 * (chosen - rejected) for chosen, rejected in gains) / count
    assert measures["tuned"]["reward_accuracy"]["value"] == pytest.approx(accuracy)
    assert measures["tuned"]["reward_margin"]["value"] == pytest.approx(margin, abs=1e-4)
    assert "reward_accuracy" not in measures["base"]
    assert "exact_match" in measures["tuned"]  # answers are written out, and beside the chosen one
    said = json.loads((run.folder / "predictions.jsonl").read_bytes().splitlines()[0])
    assert said["reference"].startswith("It is")


def test_ratings_are_measured_across_prompts(make_run, model):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"How much is {n} and {n}?"}],
            "completion": [
                {"role": "assistant", "content": f"It is {2 * n}." if n % 3 else "Who knows?"}
            ],
            "label": n % 3 > 0,
        }
        for n in range(RECORDS)
    ]
    run = make_run(method="kto", rows=rows)
    held_out = run.dataset / "evaluation.jsonl"
    measures = evaluate(run)
    labels = [json.loads(line)["label"] for line in held_out.read_bytes().splitlines()]
    assert len(set(labels)) == 2
    assert measures["records"] == sum(labels)  # nobody is asked for a bad answer
    tuned = adapt(model, changed=True).eval()
    after = log_probs(tuned, held_out)
    with tuned.disable_adapter():
        before = log_probs(tuned, held_out)
    gains = [new[0] - old[0] for old, new in zip(before, after, strict=True)]
    good = [gain for gain, label in zip(gains, labels, strict=True) if label]
    bad = [gain for gain, label in zip(gains, labels, strict=True) if not label]
    share = sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / len(good) / len(bad)
    assert measures["tuned"]["reward_accuracy"]["value"] == pytest.approx(share, abs=1e-6)
    assert 0 <= measures["base"]["ranking_accuracy"]["value"] <= 1


def test_answers_are_those_of_a_model_that_takes_the_likeliest_token(make_run, model):
    import torch

    run = make_run()
    evaluate(run)
    lines = [
        json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()
    ]
    tokenizer, tuned = load_tokenizer("v3"), adapt(model, changed=True).eval()
    records = (run.dataset / "evaluation.jsonl").read_text().splitlines()
    assert [line["record"] for line in lines] == list(range(1, len(records) + 1))
    for line in lines:
        assert line["reference"].startswith('{"sum":')
        assert line["tuned"]["exact_match"] == line["tuned"]["json_valid"] == 0
    from finetune.records import decode

    record = decode("chat", records[0].encode())
    ids = tokenizer.encode_prompt(record.messages[:1])
    start = len(ids)
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(tuned(torch.tensor([ids])).logits[0, -1].argmax()))
    assert lines[0]["tuned"]["answer"] == tokenizer.parse(ids[start:]).content


def test_an_adapter_that_changes_nothing_scores_as_the_base(make_run):
    run = make_run(changed=False)
    measures = evaluate(run)
    assert measures["base"] == measures["tuned"]


def test_a_limit_bounds_the_answers_but_not_the_loss(make_run):
    run = make_run()
    whole = evaluate(run)
    document = json.loads((run.folder / "recipe.resolved.json").read_bytes())
    document["settings"]["evaluation"]["limit"] = 2
    (run.folder / "recipe.resolved.json").write_text(json.dumps(document))
    some = evaluate(run)
    assert some["records"] == 2
    assert len((run.folder / "predictions.jsonl").read_bytes().splitlines()) == 2
    assert some["tuned"]["loss"] == whole["tuned"]["loss"]


def test_without_evaluation_records_the_validation_ones_are_taken_and_named_so(make_run):
    measures = evaluate(make_run(evaluation=0))
    assert measures["split"] == "validation"
    notes = ["measured on rows that also chose the checkpoint"]
    assert measures["note"].split("; ") == [*notes, "general loss: on 32 questions of no dataset"]


def test_nothing_held_out_is_an_error(make_run):
    run = make_run(evaluation=0, validation=0.0)
    with pytest.raises(RunError, match="no record was held out"):
        evaluate(run)


def test_a_run_without_adapter_is_an_error(make_run):
    with pytest.raises(RunError, match="no tuned model"):
        evaluate(make_run(adapter=False))


def test_forgetting_can_be_left_unmeasured(make_run):
    measures = evaluate(make_run(more=", forgetting: false"))
    assert "general_loss" not in measures["base"]
    assert measures["note"] is None


def test_another_run_stands_beside_them(make_run, check_document):
    run = make_run()
    alone = evaluate(run)
    (run.folder.parent / "sums-2").mkdir()
    shutil.copytree(run.folder, run.folder.parent / "sums-2", dirs_exist_ok=True)
    measures = evaluate(run, against="sums-2")
    check_document("files/evaluation", measures)
    assert measures["against_name"] == "sums-2"
    assert measures["against"] == measures["tuned"] == alone["tuned"]
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        check_document("files/prediction", line)
        assert line["against"] == line["tuned"]


def test_a_model_and_an_adapter_can_stand_beside_them(make_run, model):
    run = make_run()
    measures = evaluate(run, against=str(model))
    assert measures["against"] == measures["base"] != measures["tuned"]
    measures = evaluate(run, against=str(run.adapter))
    assert measures["against"] == measures["tuned"]


def test_losses_of_other_tokens_are_not_put_beside_ours(make_run, model, tmp_path):
    run = make_run()
    other = shutil.copytree(model, tmp_path / "other")
    with quiet():
        import mistral_common

    (other / "tokenizer.model.v3").unlink()
    first = Path(mistral_common.__file__).parent / "data" / shipped_file("v1")
    shutil.copy(first, other / "tokenizer.model.v1")
    measures = evaluate(run, against=str(other))
    assert measures["base"].keys() - measures["against"].keys() == {
        "loss", "perplexity", "general_loss",
    }  # fmt: skip
    assert measures["against"]["exact_match"]["value"] == 0


def test_what_cannot_stand_beside_them_is_refused_before_anything_is_measured(make_run, tmp_path):
    run = make_run()
    with pytest.raises(UsageError, match="nobody: no such folder, catalog name or hub id"):
        evaluate(run, against="nobody")
    unfinished = shutil.copytree(run.folder, run.folder.parent / "sums-2")
    shutil.rmtree(unfinished / "adapter")
    with pytest.raises(RunError, match="no tuned model"):
        evaluate(run, against="sums-2")
    foreign = shutil.copytree(run.adapter, tmp_path / "foreign")
    config = json.loads((foreign / "adapter_config.json").read_bytes())
    config["base_model_name_or_path"] = "mistralai/Mistral-7B-v0.3"
    (foreign / "adapter_config.json").write_text(json.dumps(config))
    for name in (str(foreign), None):
        with pytest.raises(UsageError, match=r"another base: .* names `mistralai/Mistral-7B-v0.3`"):
            evaluate(run, against=name)
        shutil.copy(foreign / "adapter_config.json", run.adapter)
    assert run.evaluation() is None


def test_a_judge_in_the_recipe_has_its_say(make_run, check_document):
    with serve(opinion(longer)) as (url, seen):
        run = make_run(more=f", judge: {{url: '{url}', model: judge-1, limit: 4}}")
        measures = evaluate(run, judge_key="a-given-key")
    check_document("files/evaluation", measures)
    assert measures == run.evaluation()
    facts = measures["judge"]
    assert facts["pairs"] == 4 == facts["tuned"] + facts["base"] + facts["tie"]
    assert seen
    assert {headers["authorization"] for _, headers, _ in seen} == {"Bearer a-given-key"}
    rates = [measures[side]["judge_win_rate"]["value"] for side in ("base", "tuned")]
    assert sum(rates) == pytest.approx(1)
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    verdicts = [json.loads(line).get("judge") for line in lines]
    assert None not in verdicts[:4]
    assert set(verdicts[4:]) == {None}
    for line in lines:
        check_document("files/prediction", json.loads(line))


def test_a_judge_that_fails_costs_no_other_measure(make_run, check_document):
    with serve(opinion(longer)) as (url, _):
        pass
    run = make_run(more=f", judge: {{url: '{url}', model: judge-1}}")
    with pytest.raises(PlatformError, match="cannot be reached"):
        pipeline.evaluate(run)
    measures = run.evaluation()
    check_document("files/evaluation", measures)
    assert "cannot be reached" in measures["judge"]["error"]
    assert measures["tuned"]["loss"]["value"] > 0
    assert "cannot be reached" in (run.folder / "report.html").read_text()


@pytest.mark.heavy
def test_the_command_prints_what_it_writes(make_run, tmp_path):
    run = make_run()

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "finetune", "evaluate", *arguments],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = call("last", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == run.evaluation()
    assert call("nobody").returncode == 2
    done = call("last", "--against", str(run.adapter))
    assert done.returncode == 0, done.stderr
    assert f"against {run.adapter}" in done.stdout
    assert "general_loss" in done.stdout


def test_documents_have_a_loss_and_a_middle_to_fill_in(model, tmp_path, check_document):
    rows = [
        {"text": f"def add_{n}(a, b):\n    total = a + b + {n}\n    return total\n"}
        for n in range(20)
    ]
    (tmp_path / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "code.yaml").write_text(
        f"model: {model}\nmethod: pretrain\n"
        "data: {train: [{path: code.jsonl}], validation: 0.2}\n"
        "training: {fim_ratio: 0.5}\nevaluation: {data: 0.3, max_new_tokens: 4}\n"
        "local: {dtype: float32}\n"
    )
    recipe = load_recipe(tmp_path / "code.yaml")
    dataset = prepare(recipe, folder=tmp_path / "datasets")
    run = Run.create(
        tmp_path / "runs" / "code-1", recipe, identity="0" * 16,
        dataset=dataset.folder, dataset_digest=dataset.digest,
    )  # fmt: skip
    adapt(model, changed=True).save_pretrained(run.adapter)
    measures = evaluate(run)
    check_document("files/evaluation", measures)
    assert measures["tuned"]["general_loss"] != measures["base"]["general_loss"]
    assert measures["tuned"]["exact_match"]["value"] == 0
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == measures["records"] > 2
    held_out = dataset.evaluation.read_text().splitlines()
    for line in map(json.loads, lines):
        assert line["reference"].strip() in json.loads(held_out[line["record"] - 1])["text"]


@pytest.mark.heavy
def test_a_run_whose_judge_fails_is_done_and_says_so(make_run, tmp_path):
    with serve(opinion(longer)) as (url, _):
        pass
    make_run(adapter=False, more=f", judge: {{url: '{url}', model: judge-1}}")
    recipe = load_recipe(tmp_path / "sums.yaml", ["training.steps=3", "training.learning_rate=0.1"])
    run = pipeline.run(recipe, folder=tmp_path / "runs", datasets=tmp_path / "datasets")
    assert run.state["state"] == "done"
    measures = run.evaluation()
    assert measures["tuned"]["loss"]["value"] > 0
    assert "cannot be reached" in measures["judge"]["error"]
    assert (run.folder / "report.html").is_file()
