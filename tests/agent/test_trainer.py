"""Advantages of turns in TRL's trainer: what every token is credited with, and that nothing on the way changes it."""

import copy
from types import SimpleNamespace

import pytest
import torch
import trl
from agent_cases import OPTIONS, PRICED, ScriptedRollout, careless, model_of, patients, trainer_of

from clinical_r1.agent.consultation import Rules
from clinical_r1.agent.credit import anchor_advantages, credit, returns_to_go
from clinical_r1.agent.episodes import Episode, Turn
from clinical_r1.agent.forest import Shape, chains
from clinical_r1.agent.rollouts import ConsultationRollout, consultation_reward, rows_of
from clinical_r1.agent.trainer import (
    TurnAdvantageMixin,
    build_agent_trainer_class,
    check_trace,
    checked_schedule,
    costs_at,
    episode_measures,
)
from clinical_r1.speed.prefix import SharedPrefixMixin
from clinical_r1.trainer import build_trainer_class

ESTIMATORS = ("episode", "anchor", "tree", "tree+anchor")
FOREST = Shape(2, 2, 1, 3)


def rollout_of(estimator):
    return ScriptedRollout(patients(), PRICED, FOREST if "tree" in estimator else None)


def agent(folder, estimator="anchor", threshold=0.0, **more):
    options = dict(estimator=estimator, shared_prefix_threshold=threshold) | more.pop("options", {})
    if "anchor" in estimator:
        options = OPTIONS | options
    return trainer_of(folder, more.pop("rollout", None) or rollout_of(estimator), options=options, **more)


def one_batch(trainer):
    """(inputs with their episodes, output): what one generation makes, before any shuffle."""
    trainer.model.train()
    inputs = next(iter(trainer.get_train_dataloader()))
    return inputs, trainer._generate_and_score_completions(inputs)


def expected_row(episode, values, width):
    """(width,) by hand: a turn's value on its tokens, 0 on the environment's and on padding."""
    row = []
    for turn, value in zip(episode.turns, values, strict=True):
        row += [value] * len(turn.ids) + [0.0] * len(turn.env_ids)
    return torch.tensor(row + [0.0] * (width - len(row)))


def credited(estimator, episodes):
    keys, trees = [[turn.key for turn in e.turns] for e in episodes], [e.tree for e in episodes]
    options = OPTIONS if "anchor" in estimator else {}
    return credit(
        estimator, [e.rewards for e in episodes], [e.patient for e in episodes], keys, trees, **options
    )


def gradients(trainer, inputs):
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, inputs).backward()
    return {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def largest_difference(one, two):
    assert one.keys() == two.keys() and one
    scale = max(value.abs().max() for value in one.values())
    assert scale > 1e-3
    return max((one[name] - two[name]).abs().max().item() for name in one) / scale.item()


# ------------------------------------------------------------------------------------------- what a token is credited with


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_token_has_the_advantage_of_its_turn(tmp_path, estimator):
    inputs, output = one_batch(agent(tmp_path, estimator))
    episodes = [row["episode"] for row in inputs]
    values = credited(estimator, episodes)
    width = output["completion_ids"].shape[1]
    assert output["advantages"].shape == (12, width)
    for row, (episode, advantages) in enumerate(zip(episodes, values, strict=True)):
        torch.testing.assert_close(output["advantages"][row], expected_row(episode, advantages, width))
        ids = output["completion_ids"][row][output["completion_mask"][row].bool()]
        assert ids.tolist() == episode.completion_ids
    assert any(len(set(row)) > 1 for row in values) == ("anchor" in estimator)
    assert output["advantages"].abs().max() > 0.1


def test_the_mask_of_trl_is_padded_with_ones(tmp_path):
    """So it alone would make a turn of the padding: the product with completion_mask does not."""
    inputs, output = one_batch(agent(tmp_path))
    padding = output["completion_mask"] == 0
    assert padding.any() and (output["tool_mask"][padding] == 1).all()
    assert (output["advantages"][padding] == 0).all()


@pytest.mark.parametrize("estimator", ["anchor", "tree+anchor"])
@pytest.mark.parametrize("shared", [True, False])
def test_advantages_survive_the_shuffle_and_the_split(tmp_path, estimator, shared):
    """A row is known by its tokens: each comes once, in either micro-batch, with the advantages that it was given."""
    bases = (SharedPrefixMixin,) if shared else ()

    class Kept(TurnAdvantageMixin, *bases, build_trainer_class()):
        given, trained = None, ()

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            self.given = sorted(rows_with_advantages(output))
            return output

        def compute_loss(self, model, inputs, *args, **kwargs):
            self.trained += ((len(inputs["completion_ids"]), rows_with_advantages(inputs)),)
            return super().compute_loss(model, inputs, *args, **kwargs)

    options = OPTIONS | {"estimator": estimator} | ({"shared_prefix_threshold": 0} if shared else {})
    changes = dict(per_device_train_batch_size=6, gradient_accumulation_steps=2)
    made = trainer_of(tmp_path, rollout_of(estimator), kind=Kept, options=options, **changes)
    made.train()
    assert [rows for rows, _ in made.trained] == [6, 6]
    assert sorted(row for _, rows in made.trained for row in rows) == made.given


def rows_with_advantages(batch):
    mask = batch["completion_mask"].bool()
    return [
        (ids[own].tolist(), values[own].tolist())
        for ids, own, values in zip(batch["completion_ids"], mask, batch["advantages"], strict=True)
    ]


def test_two_micro_batches_make_the_step_of_one(tmp_path):
    def trained(rows, passes):
        changes = dict(per_device_train_batch_size=rows, gradient_accumulation_steps=passes)
        made = agent(tmp_path, "tree+anchor", **changes)
        before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
        made.train()
        return {n: p.detach() - before[n] for n, p in made.model.named_parameters()}

    assert largest_difference(trained(12, 1), trained(6, 2)) < 1e-5


# --------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("estimator", ["anchor", "tree+anchor"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_shared_prompts_have_the_gradients_of_rows_alone(tmp_path, estimator, dtype, most):
    made = agent(tmp_path, estimator, model=model_of(dtype))
    _, output = one_batch(made)
    # another policy before, and a reference: ratios are clipped and the KL term counts
    made.beta, draw = 0.1, torch.Generator().manual_seed(0)
    for name in ("old_per_token_logps", "ref_per_token_logps"):
        noise = torch.randn(output["completion_ids"].shape, generator=draw, dtype=dtype)
        output[name] = -7.3 + 0.3 * noise
    shared = gradients(made, output)
    assert made._metrics["train"]["shared_prefix/tokens"][-1] < 0.7
    made.shared_prefix_threshold = float("inf")
    alone = gradients(made, output)
    assert made._metrics["train"]["shared_prefix/tokens"][-1] == 1
    assert largest_difference(shared, alone) < most


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_those_of_the_stock_trainer_on_the_same_rows(tmp_path, estimator):
    made = agent(tmp_path, estimator)
    _, output = one_batch(made)
    stock = copy.copy(made)
    stock.__class__ = trl.GRPOTrainer
    assert largest_difference(gradients(made, output), gradients(stock, output)) < 1e-5


def test_the_gradient_is_the_sum_of_advantage_times_log_probability(tmp_path):
    """dapo, on fresh samples: - sum(A grad log p) / tokens of the agent, with a model and a softmax called by hand."""
    made = agent(tmp_path, "tree+anchor", model=model_of(torch.float64))
    inputs, output = one_batch(made)
    found = gradients(made, output)
    made.model.zero_grad()
    loss, tokens = 0.0, 0
    episodes = [row["episode"] for row in inputs]
    for episode, values in zip(episodes, credited("tree+anchor", episodes), strict=True):
        ids, at = torch.tensor([[*episode.prompt_ids, *episode.completion_ids]]), len(episode.prompt_ids)
        logps = made.model(ids).logits[0].log_softmax(-1)
        for (start, end), value in zip(episode.spans, values, strict=True):
            places = torch.arange(at + start, at + end)
            loss = loss - value * logps[places - 1, ids[0, places]].sum()
            tokens += end - start
    (loss / tokens).backward()
    by_hand = {n: p.grad for n, p in made.model.named_parameters()}
    assert largest_difference(found, by_hand) < 1e-6


def stock_trainer(folder, **changes):
    """TRL's own, on the same episodes."""

    class Stock(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            self.output = super()._generate_and_score_completions(inputs)
            return self.output

    with pytest.warns(UserWarning, match="rollout_func"):
        return trainer_of(folder, kind=Stock, **changes)


def test_episode_without_std_is_stock_grpo(tmp_path):
    """The same weights after a step, up to the order of sums."""

    def trained(made):
        made.train()
        return {n: p.detach().clone() for n, p in made.model.named_parameters()}

    ours = trained(agent(tmp_path, "episode", options={"turn_std": False}))
    stock = trained(stock_trainer(tmp_path, scale_rewards="none"))
    assert max((ours[n] - stock[n]).abs().max() for n in ours) < 1e-6
    start = dict(model_of().named_parameters())
    assert max((ours[n] - start[n]).abs().max() for n in ours) > 1e-4


@pytest.mark.parametrize("estimator", ["episode", "tree"])
def test_the_episode_term_is_trls_advantage_up_to_its_epsilon(tmp_path, estimator):
    """A_inter: TRL divides by std + 1e-4, the references by std + 1e-6. A tree's own term is what is added to it."""
    rollout = rollout_of(estimator)
    inputs, output = one_batch(stock_trainer(tmp_path, rollout=rollout))
    episodes = [row["episode"] for row in inputs]
    rewards = torch.tensor([e.reward for e in episodes]).view(2, 6)
    std = rewards.std(dim=1, keepdim=True).expand(2, 6).flatten()
    a_inter = torch.tensor([row[0] for row in credited("episode", episodes)])
    torch.testing.assert_close(output["advantages"] * (std + 1e-4) / (std + 1e-6), a_inter, rtol=0, atol=2e-6)
    assert a_inter.abs().max() > 0.5
    if estimator == "tree":
        of_tree = rewards.view(4, 3)
        a_intra = (
            (of_tree - of_tree.mean(1, keepdim=True)) / (of_tree.std(1, keepdim=True) + 1e-6)
        ).flatten()
        both = torch.tensor([row[0] for row in credited("tree", episodes)])
        torch.testing.assert_close(both, a_inter + a_intra, rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_batch_that_cuts_a_group_between_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trl.GRPOConfig, "world_size", 2)
    kind = type("NotShared", (TurnAdvantageMixin, build_trainer_class()), {})
    options = {"estimator": "anchor"}
    with pytest.raises(ValueError, match="3 rows a process cut a group of 6"):
        trainer_of(tmp_path, kind=kind, options=options, per_device_train_batch_size=3)


def test_rows_that_cut_a_group_or_a_tree_are_refused(tmp_path):
    class Reordered(ScriptedRollout):
        def __call__(self, prompts, trainer):
            found = super().__call__(prompts, trainer)
            order = [0, 1, 3, 2, *range(4, 12)]  # a leaf of the second tree among those of the first
            return {name: rows and [rows[i] for i in order] for name, rows in found.items()}

    made = agent(tmp_path, "tree", rollout=Reordered(patients(), PRICED, FOREST))
    with pytest.raises(ValueError, match="are not one tree of their own"):
        one_batch(made)


class Merged(ScriptedRollout):
    """Says that the environment's tokens are the agent's."""

    def __call__(self, prompts, trainer):
        found = super().__call__(prompts, trainer)
        return found | {"env_mask": [[1] * len(mask) for mask in found["env_mask"]]}


def test_a_turn_without_a_token_of_the_environment_is_refused(tmp_path):
    made = agent(tmp_path, rollout=Merged(patients(), PRICED))
    with pytest.raises(ValueError, match="row 0 has 1 spans of the agent's tokens and . turns in its trace"):
        one_batch(made)


def test_spans_at_other_places_than_the_turns_are_refused():
    turn = Turn("a", (5, 6), True, "b", (7,), 0.0, "k", None, "n")
    episode = Episode("e", "p", "x", None, (1,), (turn, turn))
    assert episode.spans == [(0, 2), (3, 5)]
    check_trace([[(0, 2), (3, 5)]], [episode])
    with pytest.raises(ValueError, match=r"row 0 has the agent's tokens at \[\(0, 3\), \(4, 5\)\]"):
        check_trace([[(0, 3), (4, 5)]], [episode])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(estimator="gigpo"), "estimator 'gigpo' is not known; expected one of episode"),
        (dict(estimator="tree"), "plays chains; give it forest=Shape"),
        (dict(cost_schedule=[(5, {"test": 0.0}), (0, {"test": 0.1})]), "expected rising steps"),
    ],
)
def test_what_cannot_be_credited_is_refused_at_once(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        trainer_of(tmp_path, options=options)


def test_a_rollout_that_is_none_of_consultations_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a ConsultationRollout"):
        trainer_of(tmp_path, rollout=lambda prompts, trainer: {}, options={"estimator": "anchor"})


def test_a_reward_other_than_the_episodes_is_refused(tmp_path):
    """It would be logged and not trained on."""
    made = agent(tmp_path)
    made.reward_funcs = [lambda episode, **_: [float(e.right) + 1 for e in episode]]
    with pytest.raises(ValueError, match="expected the episode's own: use rollouts.consultation_reward"):
        one_batch(made)


def test_a_second_reward_is_refused():
    made = SimpleNamespace(
        estimator="anchor",
        rollout_func=ConsultationRollout(patients(), PRICED),
        reward_funcs=[consultation_reward, careless],
    )
    with pytest.raises(ValueError, match="got 2 rewards; expected one"):
        TurnAdvantageMixin._check_agent(made)


# -------------------------------------------------------------------------------------------------------- costs and log


def test_costs_are_linear_between_two_steps_and_constant_outside():
    schedule = checked_schedule([(10, {"test": 0.0, "ask": 0.2}), (20, {"test": 0.1, "ask": 0.0})])
    assert costs_at(schedule, 0) == costs_at(schedule, 10) == {"test": 0.0, "ask": 0.2}
    assert costs_at(schedule, 15) == pytest.approx({"test": 0.05, "ask": 0.1})
    assert costs_at(schedule, 20) == costs_at(schedule, 99) == {"test": 0.1, "ask": 0.0}


@pytest.mark.parametrize(
    ("schedule", "match"),
    [
        ([(0, {"test": 0.0}), (0, {"test": 0.1})], "expected rising steps"),
        ([(0, {"test": 0.0}), (5, {"ask": 0.1})], "the same names of costs"),
        ([(0, {"tset": 0.0})], "got a cost of 0.0 for 'tset'"),
        ([(0, {"test": -0.1})], "got a cost of -0.1"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(schedule, match):
    with pytest.raises(ValueError, match=match):
        checked_schedule(schedule)


def test_a_steps_episodes_pay_that_steps_costs(tmp_path):
    schedule = [(0, {"test": 0.0}), (2, {"test": 0.4})]
    paid = []

    class Kept(ScriptedRollout):
        def __call__(self, prompts, trainer):
            paid.append(self.rules.costs["test"])
            return super().__call__(prompts, trainer)

    made = agent(
        tmp_path, rollout=Kept(patients(), Rules()), max_steps=3, options={"cost_schedule": schedule}
    )
    made.train()
    assert paid == pytest.approx([0.0, 0.2, 0.4])
    assert [row["agent/cost_test"] for row in made.state.log_history[:3]] == pytest.approx(paid)


def test_the_log_says_what_the_episodes_were(tmp_path):
    made = agent(tmp_path)
    inputs, output = one_batch(made)
    episodes = [row["episode"] for row in inputs]
    logged = {name: values[-1] for name, values in made._metrics["train"].items()}
    turns = [turn for e in episodes for turn in e.turns]
    assert logged["agent/right"] == pytest.approx(sum(e.diagnosis == e.gold for e in episodes) / 12)
    assert logged["agent/turns"] == pytest.approx(len(turns) / 12)
    assert logged["agent/invalid"] == pytest.approx(sum(t.problem is not None for t in turns) / len(turns))
    assert (
        logged["agent/cut"] == pytest.approx(sum(not t.ended for t in turns) / len(turns))
        and logged["agent/cut"] > 0
    )
    own = (output["completion_mask"] * output["tool_mask"]).bool()
    assert logged["credit/mean"] == pytest.approx(output["advantages"][own].mean().item(), abs=1e-6)
    assert logged["anchors/repeated"] + logged["anchors/alone"] == pytest.approx(1)
    returns = [returns_to_go([e.rewards], OPTIONS["gamma"])[0] for e in episodes]
    keys = [[turn.key for turn in e.turns] for e in episodes]
    terms = anchor_advantages(returns, keys, [e.patient for e in episodes])
    moved = [
        value != 0
        for e, values in zip(episodes, terms, strict=True)
        for turn, value in list(zip(e.turns, values, strict=True))[1:]
        if turn.problem is None
    ]
    assert logged["anchors/informative"] == pytest.approx(sum(moved) / len(moved)) and any(moved)
    table = list(made._logs["advantages"])
    by_row = [(row * mask).sum() / mask.sum() for row, mask in zip(output["advantages"], own, strict=True)]
    assert table == pytest.approx([value.item() for value in by_row], abs=1e-6)


def test_inquiries_are_valid_turns_that_are_no_diagnosis():
    made = ScriptedRollout(patients(), PRICED)
    speaker = made.speaker(None, None)
    episodes = chains(speaker, patients(), PRICED, 4).episodes
    total, n = episode_measures(episodes)["agent/inquiries"]
    learned = sum(
        turn.problem is None and " diagnose " not in turn.text for e in episodes for turn in e.turns
    )
    assert (total, n) == (learned, len(episodes)) and 0 < learned


def test_evaluation_logs_the_agent_and_trains_nothing(tmp_path):
    made = agent(tmp_path, "tree", num_generations_eval=1, per_device_eval_batch_size=3)
    from datasets import Dataset

    before = {n: p.detach().clone() for n, p in made.model.named_parameters()}
    made.evaluate(Dataset.from_list(rows_of(patients(), PRICED)))
    logged = made.state.log_history[-1]
    assert logged["eval_agent/answered"] > 0 and "eval_credit/episode" not in logged
    assert all(torch.equal(p, before[n]) for n, p in made.model.named_parameters())


def test_the_order_of_the_bases_is_that_of_the_documentation():
    names = [kind.__name__ for kind in build_agent_trainer_class().__mro__]
    order = ["TurnAdvantageMixin", "SharedPrefixMixin", "MultiObjectiveMixin", "GRPOTrainer"]
    assert sorted(order, key=names.index) == order
