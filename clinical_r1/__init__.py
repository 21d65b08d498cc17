"""clinical_r1: multi-objective reinforcement learning for clinical reasoning, as one reproducible paper package.

The paper is *Clinical-R1* (arXiv 2512.00601, PMLR 317): a language model is trained with CRPO, group-relative policy
optimisation whose verifiable reward joins accuracy, faithfulness and comprehensiveness, without human labels.

The pipeline in ten lines (`./reproduce.sh` runs them as notebooks)::

    config = settings.settings_for("cpu")              # everything a run depends on
    curation.splits.ensure_splits(config)              # questions on disk: two halves to train on, test sets, quarantine
    train.train_all(config)                            # every arm: weights, and a log of every objective by name
    generate.complete_all(config)                      # questions -> completions on disk, with the exact prompts
    rows = score.score_all(config)                     # completions -> letters, rewards, measures; needs no model
    records = pandas.DataFrame(rows)
    table = tables.build_table1(config, records)       # means with intervals, the paper's printed numbers beside them
    tables.write_table1(table, config.run_dir)         # Table 1
    plots.fig4_accuracy(table)                         # Figure 4
    tables.compare_arms(records, "crpo", "grpo", metrics.PRIMARY_METRICS)  # paired differences, tested over questions and seeds

Shape letters used in every docstring:

    P  prompts in a batch             G  completions per prompt (the group)       N = P * G, groups contiguous
    K  objectives (reward functions)  T  tokens of a completion

Files at the root are the paper, in five rows. Each file imports its own row and the rows above it:

    ground      files arms labels settings workers
    text        questions prompts completions
    objective   rewards citation advantages
    policy      extensions extension_checks models artifacts starts trainer train generate
    results     score metrics intervals paper tables plots

Folders are wings, each with a docstring that says what it is for: clinic (the synthetic world), bases (real base models),
engines (who answers the questions), curation, judges, speed, laboratory (what the paper leaves out), audit (can the numbers be
trusted?), causality (does the reasoning move the answer?), agent (consultations of several turns), preferences (conversation,
then pairs by a knowledge graph), findings (what the tables say), pipeline (what ./reproduce.sh calls), workshop.
A wing imports the root and the wings that tests/test_imports.py names. docs/map.md has a line for every file.

Everything clinical in this package is teaching material, never medical advice.
"""

__version__ = "0.1.0"
