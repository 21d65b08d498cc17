"""What every tiny training run of a test sets: on the CPU, in float32, without checkpoints, bars or reports."""

QUIET = dict(
    lr_scheduler_type="constant",
    bf16=False,
    use_cpu=True,
    gradient_checkpointing=False,
    save_strategy="no",
    logging_steps=1,
    report_to=[],
    disable_tqdm=True,
    dataloader_pin_memory=False,
)
