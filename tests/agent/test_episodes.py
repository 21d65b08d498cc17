"""Episodes: tokens, masks and spans, states, and what is played again from a transcript."""

from dataclasses import replace

import pytest
from agent_cases import PRICED, Cut, careless, patients, random_inquiry, tokenizer

from clinical_r1.agent.consultation import DIAGNOSE, Consultation, Rules, read_action
from clinical_r1.agent.episodes import (
    Episode,
    key_text,
    read_transcripts,
    replay,
    rescored,
    state_of,
)
from clinical_r1.agent.forest import chains
from clinical_r1.agent.language import ASSISTANT, END, USER
from clinical_r1.agent.speaking import Scripted
from clinical_r1.files import write_stamped


@pytest.fixture(scope="module")
def episodes():
    return chains(Cut(careless, 0.2), patients(), PRICED, 8, seed=1).episodes


def of(episode):
    return next(patient for patient in patients() if patient.id == episode.patient)


def test_these_episodes_hold_every_kind_of_turn(episodes):
    problems = {turn.problem for episode in episodes for turn in episode.turns}
    assert problems >= {None, "not understood", "too early"}
    assert {turn.ended for episode in episodes for turn in episode.turns} == {True, False}
    assert any(not episode.turns[-1].ended for episode in episodes)
    assert any(episode.diagnosis is None for episode in episodes)
    assert {episode.right for episode in episodes} == {True, False}


def test_the_mask_is_the_agents_tokens_and_the_spans_are_its_turns(episodes):
    for episode in episodes:
        ids, mask = episode.completion_ids, episode.env_mask
        assert len(ids) == len(mask) and sum(mask) == episode.agent_tokens
        said = [tuple(ids[start:end]) for start, end in episode.spans]
        assert said == [turn.ids for turn in episode.turns]
        for start, end in episode.spans:
            assert mask[start:end] == [1] * (end - start)
            assert end == len(mask) or mask[end] == 0  # else two turns would be one run
        assert sum(end - start for start, end in episode.spans) == sum(mask)


def test_a_whole_transcript_reads_as_the_chat_template_writes_it(episodes):
    """What a model was taught in one piece is what the rollout puts together, token by token."""
    words = tokenizer()
    for episode in episodes:
        parts = [
            f"{turn.text} {END} {f'{USER} {turn.observation} {ASSISTANT}' if turn.observation else ''}"
            for turn in episode.turns
        ]
        assert words(" ".join(parts), add_special_tokens=False)["input_ids"] == episode.completion_ids


def test_every_episode_ends_with_the_end_token(episodes):
    """TRL counts any other as cut at its limit."""
    for episode in episodes:
        assert episode.completion_ids[-1] == tokenizer().eos_token_id
        assert episode.env_mask[-1] == int(episode.turns[-1].ended)


def test_a_turn_that_was_cut_is_invalid_and_its_end_is_the_environments():
    patient = patients()[0]
    (episode,) = chains(Cut(random_inquiry, 1), [patient], PRICED).episodes
    end = tokenizer().eos_token_id
    assert [turn.problem for turn in episode.turns] == ["not understood"] * PRICED.horizon
    assert [turn.env_ids[0] for turn in episode.turns] == [end] * PRICED.horizon
    assert read_action(episode.turns[0].text) is not None  # it would be understood, had it ended
    assert episode.turns[0].hypothesis is None
    assert episode.reward == pytest.approx(-0.1 * PRICED.horizon) and episode.env_mask[-1] == 0


def test_every_action_on_offer_is_read_back_from_its_tokens():
    words = tokenizer()
    for patient in patients(40):
        for phrase, (_, verb) in patient.menu.items():
            for option in patient.options:
                text = f"suspect {option} {verb} {phrase}"
                ids = words(text, add_special_tokens=False)["input_ids"]
                assert len(ids) == 4 and words.decode(ids) == text
        assert read_action(f"suspect {option} {DIAGNOSE} {option}").object == option


def test_a_key_stands_for_the_state_before_its_turn(episodes):
    for episode in episodes:
        whole = Consultation(of(episode), PRICED)
        for turn in episode.turns:
            assert turn.key == key_text(whole)
            again = Consultation(of(episode), PRICED).restore(state_of(turn.key, PRICED))
            assert again.state_key() == whole.state_key() and again.may_diagnose == whole.may_diagnose
            whole.step(turn.text if turn.ended else "")


def test_a_state_of_another_patient_is_refused(episodes):
    other = next(patient for patient in patients() if patient.id != episodes[0].patient)
    with pytest.raises(ValueError, match="expected a state of the same patient"):
        Consultation(other, PRICED).restore(state_of(episodes[0].turns[1].key, PRICED))


def test_a_wasted_turn_leads_to_another_state():
    """Nothing new is known, but fewer turns are left."""
    consultation = Consultation(patients()[0], PRICED)
    before = key_text(consultation)
    consultation.step("nonsense")
    assert key_text(consultation) != before


# ----------------------------------------------------------------------------------------------------- played again


def test_an_episode_replays_to_itself(episodes):
    for episode in episodes:
        assert replay(episode, of(episode), PRICED) is episode


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(reward=0.5), "turn 1 .* has the reward 0.5, played again it is"),
        (dict(observation="all is well. 4 turns left"), "turn 1 .* has the observation"),
        (dict(key="[]"), "turn 1 .* has the key"),
        (dict(problem="too early"), "turn 1 .* has the problem"),
    ],
)
def test_a_changed_transcript_does_not_replay(episodes, change, match):
    episode = episodes[0]
    wrong = replace(episode, turns=(replace(episode.turns[0], **change), *episode.turns[1:]))
    with pytest.raises(ValueError, match=match):
        replay(wrong, of(episode), PRICED)


def test_another_patient_other_costs_and_another_ending_do_not_replay(episodes):
    episode = episodes[0]
    other = next(patient for patient in patients() if patient.id != episode.patient)
    with pytest.raises(ValueError, match="expected its own patient"):
        replay(episode, other, PRICED)
    with pytest.raises(ValueError, match="has the reward"):
        replay(episode, of(episode), PRICED.with_costs(ask=0.3, examine=0.3, test=0.3, invalid=0.3))
    with pytest.raises(ValueError, match="ends with 'nothing'"):
        replay(replace(episode, diagnosis="nothing"), of(episode), PRICED)
    with pytest.raises(ValueError, match=r"its consultation is open after \d"):
        replay(replace(episode, turns=episode.turns[:-1]), of(episode), PRICED)
    with pytest.raises(ValueError, match="its consultation is over after 4"):
        replay(next(e for e in episodes if len(e.turns) == 5), of(episode), Rules(horizon=4))


def test_other_costs_change_the_rewards_alone(episodes):
    dear = PRICED.with_costs(ask=0.2, examine=0.2, test=0.2)
    for episode in episodes:
        again = rescored(episode, of(episode), dear)
        inquiries = [turn for turn in episode.turns if turn.problem is None and turn.observation]
        inquiries += [
            turn for turn in episode.turns[-1:]
            if turn.problem is None and read_action(turn.text).verb != DIAGNOSE and not turn.observation
        ]  # fmt: skip
        paid = sum(PRICED.costs[read_action(turn.text).verb] for turn in inquiries)
        assert again.reward == pytest.approx(episode.reward + paid - 0.2 * len(inquiries))
        assert [t.ids for t in again.turns] == [t.ids for t in episode.turns]
        assert again.completion_ids == episode.completion_ids and again.diagnosis == episode.diagnosis


def test_transcripts_survive_the_disk(episodes, tmp_path):
    path = write_stamped(tmp_path / "some.jsonl", [e.to_json() for e in episodes], {"policy": "careless"})
    assert read_transcripts(path) == list(episodes)
    assert all(isinstance(each, Episode) for each in read_transcripts(path))


def test_a_transcript_that_was_changed_is_refused(episodes, tmp_path):
    path = write_stamped(tmp_path / "some.jsonl", [e.to_json() for e in episodes], {"policy": "careless"})
    path.write_text(path.read_text().replace('"reward": 1.0', '"reward": 2.0', 1))
    with pytest.raises(ValueError, match="was changed after it was made"):
        read_transcripts(path)


def test_a_script_says_whole_turns():
    (episode,) = chains(Scripted(random_inquiry, tokenizer()), patients(1), Rules()).episodes
    assert all(turn.problem is None and turn.ended and len(turn.ids) == 5 for turn in episode.turns)
    assert episode.turns[-1].env_ids == () and episode.env_mask[-1] == 1
