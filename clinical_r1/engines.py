"""Questions' prompts -> text: the ways to get an answer."""

from clinical_r1.settings import Settings


def sample_completions(
    model, tokenizer, prompts: list[str], settings: Settings, protocol: str, seed: int
) -> list[dict]:
    """One completion a prompt: {"text", "finish_reason": "stop" | "length", "tokens"}. Same seed, same text."""
    import torch

    torch.set_num_threads(
        settings.threads
    )  # more threads than free cores make small models many times slower
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if protocol == "sampled":
        sampling = {
            "do_sample": True,
            "temperature": settings.eval_temperature,
            "top_p": settings.eval_top_p,
            "top_k": 0,
        }
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=settings.max_completion_tokens,
            **sampling,
        )
    answers = []
    for ids in output[:, encoded["input_ids"].shape[1] :].tolist():
        stopped = tokenizer.eos_token_id in ids
        kept = ids[: ids.index(tokenizer.eos_token_id)] if stopped else ids
        text = tokenizer.decode(kept, skip_special_tokens=True)
        answers.append({"text": text, "finish_reason": "stop" if stopped else "length", "tokens": len(kept)})
    return answers
