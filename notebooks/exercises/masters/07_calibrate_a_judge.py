# %% [markdown]
# # 7 · Which judge would you let rank two methods?
#
# A careful writer and a hasty one answered the same 150 clinic questions. Three scripted judges counted what they did,
# and so did the exact judge, which nobody has outside such a closed world. For which measure can which judge be trusted?

# %%
import numpy as np
import pandas as pd

from clinical_r1.judges.calibration import agreement, ordering
from clinical_r1.workshop.judge import JUDGED_MEASURES, check_judges, judged_methods

ids, exact, judged = judged_methods()
pd.set_option("display.precision", 2)
print(*judged, sep="\n")

# %% [markdown]
# ## Agreement
#
# One judge against the exact counts. Kappa: does it count the right completions? Bias: does it count too much?

# %%
one = "length judge"
both = judged[one]["careful"] + judged[one]["hasty"], exact["careful"] + exact["hasty"]
table = agreement(*both, np.random.default_rng(0), JUDGED_MEASURES, ids=ids * 2)
table[["measure", "n", "kappa", "bias", "judge_mean", "exact_mean"]].round(2)

# %% [markdown]
# ## Order
#
# `ordering(judged[name], exact, measures, ids)` compares the two writers (careful minus hasty): the judge's difference
# and the exact one, each with its interval. For each measure, name **all** judges that put the two writers in the right
# order; an empty list where nobody can, or where there is no order to find.

# %%
# BEGIN SOLUTION
tables = {name: ordering(verdicts, exact, JUDGED_MEASURES, ids) for name, verdicts in judged.items()}
orders = pd.concat(tables, names=["judge"]).reset_index("judge")
answer = {
    measure: orders.loc[(orders["measure"] == measure) & (orders["order"] == "same"), "judge"].tolist()
    for measure in JUDGED_MEASURES
}
orders[["judge", "measure", "judged", "judged_low", "judged_high", "exact", "order"]].round(2)
# STUDENT
# # Hint: start with one judge, and read the last column of its table.
# answer = dict.fromkeys(JUDGED_MEASURES)
# ordering(judged["length judge"], exact, JUDGED_MEASURES, ids).round(2)
# END SOLUTION

# %% tags=["check"]
passed = check_judges(answer)

# %% [markdown] tags=["solution"]
# ## Why
#
# All three order faithfulness rightly, the length judge without reading a word: careful answers happen to be longer. On
# hallucination its trick turns round, and the claim counter, which cannot check a fact, sees none in either. The noisy
# judge errs in every fifth instance and is still right about the order. Neither writer chains backwards, so every
# difference that a judge reports there is its own.
