# %% [markdown]
# # 6 · Which split leaks?
#
# Four splits of clinic questions, each with a training and a test part. In some of them test questions have a twin in
# training, or two: nearly the same words, or the same case told in other words. Find out which, and how many questions.

# %%
from clinical_r1.clinic.cases import Case
from clinical_r1.curation.folding import similar_pairs
from clinical_r1.curation.splits import curate
from clinical_r1.workshop.leak import LEAK_KINDS, check_leaks, leaking_splits

splits = leaking_splits()
for name, (train, test) in splits.items():
    print(f"{name}: {len(train)} training, {len(test)} test questions")

# %% [markdown]
# ## Two tools
#
# `similar_pairs(train, test)` compares words: (i, j, similarity) wherever two questions share half their 5-grams. One
# split against a part of itself, to see what it returns:

# %%
train, test = splits["north"]
similar_pairs(train[:3], train[:2])

# %% [markdown]
# A clinic question also carries its case, which no wording changes. Two questions are the same case when answer, options
# and stated findings agree, in whatever order:

# %%
case = Case.from_json(test[0].meta["case"])
print(test[0].stem)
print(case.gold, case.options, case.stated, sep="\n")

# %% [markdown]
# `curate(train, against=test)` is what the pipeline runs. What does it set aside?

# %%
for name, (train, test) in splits.items():
    print(name, len(curate(train, against=test).quarantined))

# %% [markdown]
# ## Count
#
# For each split: how many **test questions** have a near-duplicate in training, and how many a rephrased twin?


# %%
# BEGIN SOLUTION
def case_key(question):
    case = Case.from_json(question.meta["case"])
    return case.gold, frozenset(case.options), frozenset(case.stated)


answer = {}
for name, (train, test) in splits.items():
    alike = {j for _, j, _ in similar_pairs(train, test)}
    known = {case_key(question) for question in train}
    retold = {j for j, question in enumerate(test) if case_key(question) in known}
    answer[name] = {"near-duplicate": len(alike), "rephrased": len(retold - alike)}
# STUDENT
# # Hint: frozenset(case.stated) forgets the order. A set of test numbers j counts questions, not pairs.
# answer = {name: dict.fromkeys(LEAK_KINDS) for name in splits}
# END SOLUTION
print(LEAK_KINDS, answer)

# %% tags=["check"]
passed = check_leaks(answer)

# %% [markdown] tags=["solution"]
# ## What to take along
#
# The shortened twins share most of their words and none of their case keys: a finding is missing. The rephrased twins
# share the case and hardly a word. Neither tool finds both, and the curation of real benchmarks has only the words: its
# count is a lower bound. Where cases are generated, split by case, never by row.
