"""Printed names of methods, measures, objectives, benchmarks and verdicts, each once, with their colours, for tables, figures
and pages; and the words that cite nothing, or that relate a finding to something, for whoever reads answers."""

from clinical_r1.arms import MAIN, METHODS

CLINIC_BENCHMARKS = ("clinic", "clinic-shift", "clinic-expert")
PAPER_BENCHMARKS = ("medqa", "medmcqa", "medxpertqa")
GUESSES = ("chance", "majority_letter")
METHOD_LABELS = {arm.name: arm.label for arm in MAIN}
METRIC_LABELS = {
    "backtracking": "Backtracking",
    "backward_chaining": "Backward chaining",
    "subgoal_setting": "Subgoal setting",
    "verification": "Verification",
    "faithfulness": "Faithfulness",
    "cecd": "CECD",
    "drc": "DRC",
    "hallucination": "Hallucination ↓",
    "accuracy": "Accuracy (%)",
}
BENCHMARK_LABELS = {
    "clinic": "clinic",
    "clinic-shift": "clinic-shift",
    "clinic-expert": "clinic-expert",
    "medqa": "MedQA",
    "medmcqa": "MedMCQA",
    "medxpertqa": "MedXpertQA",
}
OBJECTIVE_LABELS = METRIC_LABELS | {
    "tokens": "Tokens per response",
    "reward": "Total reward",
    "accuracy_reward": "Accuracy reward",
    "thinking_format_reward": "Thinking-format reward",
    "clinical_reasoning_reward": "Clinical-reasoning reward",
    "consistency_reward": "Consistency reward",
    "kl": "KL to the reference",
    "entropy": "Entropy",
    "completions/mean_length": "Completion length (tokens)",
}

# ------------------------------------------------------------------------------------------------------------- colours
# Two that must be told apart differ by at least 10 (CIEDE2000; 1 is just visible) for normal sight and under protanopia,
# deuteranopia and tritanopia (`tests/colours.py`); a marker, hatch, line or sign says everything a second time.
# A method looks the same in every figure: Okabe and Ito's palette
METHOD_COLOURS = dict(zip(METHODS, ("#6E6E6E", "#0072B2", "#D55E00", "#56B4E9", "#E69F00"), strict=True))
METHOD_MARKERS = dict(zip(METHODS, "osD^v", strict=True))
METHOD_HATCHES = dict(zip(METHODS, ("", "", "//", "..", "xx"), strict=True))
# Arms and models that a user brings, in the order of the own file; what repeats differs in its marker
OWN_COLOURS = ("#009E73", "#CC79A7", "#8C564B", "#332288")
OWN_MARKERS = "PX*<>"
OWN_HATCHES = ("--", "||", "oo", "++", "**")
# Terms of a reward, in their order
REWARD_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E6E6E")
REWARD_HATCHES = ("", "//", "..", "xx", "\\\\", "--")
# Families of the laboratory's arms
FAMILY_COLOURS = {
    "k": "#113377",
    "terms": "#BB88AA",
    "citation": "#663344",
    "consistency": "#AACC77",
    "prompt_x_reward": "#8877FF",
    "group_size": "#669977",
    "aggregator": "#AA4433",
    "kl": "#770000",
    "grounded": "#3300FF",
    "cold_start": "#56B4E9",
}
FAMILY_MARKERS = dict(zip(FAMILY_COLOURS, "PXhp<>*d8^", strict=True))
FAMILY_LABELS = {
    "k": "Weight k",
    "prompt_x_reward": "Prompt × reward",
    "kl": "KL",
    "main": "The five methods",
}
# Arms of the diagnostic agent (`agent.arms`), and the policy that they start from
AGENT_COLOURS = {
    "start": "#6E6E6E",
    "grpo": "#0072B2",
    "gigpo": "#D55E00",
    "gigpo_no_std": "#E69F00",
    "tree_grpo": "#009E73",
    "tree_anchor": "#CC79A7",
}
AGENT_MARKERS = dict(zip(AGENT_COLOURS, "os^vDP", strict=True))
# Weight of a finding for an option, against to for; the sign is written in every cell
WEIGHT_COLOURS = {-2: "#D55E00", -1: "#F2B285", 0: "#F4F4F4", 1: "#8CC5E8", 2: "#0072B2"}
PAPER_COLOUR, QUIET_COLOUR = (
    "#222222",
    "#D0D0D0",
)  # what the paper prints; whatever only stands behind the rest
# verdict of a claim -> (sign, words, background, line under it)
VERDICT_LOOKS = {
    "true": ("✓", "true", "#9BD3F5", "solid"),
    "contradicted_by_vignette": ("✗", "contradicted by the vignette", "#D9713F", "wavy"),
    "contradicted_by_kb": ("≠", "contradicted by the knowledge base", "#F6DE63", "double"),
    "unverifiable": ("?", "unverifiable", "#C4C4C4", "dotted"),
}


def family_label(family):
    """What a family of arms is called in a figure."""
    return FAMILY_LABELS.get(family, family.replace("_", " ").capitalize())


def objective_label(column):
    """What an objective or a log column is called in a figure."""
    name = column.removeprefix("rewards/").removesuffix("/mean")
    return OBJECTIVE_LABELS.get(column) or OBJECTIVE_LABELS.get(name) or name.replace("_", " ")


# -------------------------------------------------------------------------------- common words of an answer
# Words that cite nothing: function words, the format's own words, who came where and when, units, and the phrases of any
# conclusion ("as noted above, the analysis of the findings supports the most likely diagnosis"). Words under three letters
# never count.
_FUNCTION_WORDS = """
about above after again against all almost along already also although among and another any are around because been before
being below best better between both but came can cannot case cases clear clearly come compared could did does doing done due
during each either else even ever every few for from fully further furthermore given gives had has have having hence her here
hers him his how however its itself just last later least less let like made mainly make makes many may me might more moreover
most much must neither never next nor not now obvious off often once only other others our over overall own per rather really
same see seem seems several shall she should show showing shown shows since some still strongly such than that the their them
then there therefore these they thing this those though through thus together too toward towards under until upon use used
using very via was way well went were what when where whether which while who whom whose why will with within without would
yes yet you your first second third one two three
"""
_REASONING_WORDS = """
analysed analysis analytical analyze analyzed answer answers argue argued argues boxed check checked choice choices choose
chosen conclude concluded concludes conclusion conclusively confirm confirmed confirms consider considered considering
consistent correct decide decided decides decision deliberate described diagnose diagnosed diagnoses diagnosis diagnostic
discussed dx evidence expect expected explain explained explains fact facts favor favored favors favour favoured favours final
finally finding findings fit fits history hypotheses hypothesis impression inconsistent indicate indicated indicates
indicating information intuition intuitive know known leading likely match matched matches mentioned noted option options part
patient patients point pointing points presentation presented presenting presents previous previously probable question reason
reasoned reasoning reasons refer reject rejected rejects rest reveal revealed reveals rule ruled rules section select selected
stated step steps suggest suggested suggesting suggests summary support supported supporting supports suspect suspected
symptom symptoms system test testing tests text think thinking thought unlikely vignette weigh weighed weighs wrong
"""
_SETTING_WORDS = """
man woman boy girl child male female infant newborn
year years old month months week weeks day days hour hours minute minutes comes brought
arrives admitted clinic hospital emergency department room physician doctor office nothing something associated association
commonly typically usually generally potentially possible possibly possibility suspicion characterized referred condition
conditions type form concern concerning appropriate effective following statement statements true false except regarding
percent
"""
_UNITS = "microliter litre liter mmol meq mcg hpf min bpm dl mg mm kg cm hg"
STOP_WORDS = frozenset(f"{_FUNCTION_WORDS} {_REASONING_WORDS} {_SETTING_WORDS} {_UNITS}".split())

# A sentence that holds one of these relates a finding to something; a list of findings holds none.
_CONTRARY_WORDS = """
against atypical contradict contradicted contradicts contraindicated exclude excluded excludes excluding implausible
improbable incompatible inconsistent less rather reject rejected rejects rule ruled rules ruling unlikely unsupported
"""

# Of a finding as often as of an option.
_DENYING_WORDS = "although but cannot except however instead lack lacks neither nor not unlike whereas wrong"
_RELATING_WORDS = """
argue argued argues arguing because cause caused causes characteristic classic compatible confirm confirmed confirms
consistent consequently due expect expected explain explained explaining explains favor favored favoring favors favour
favoured favouring favours fit fits hence hallmark imply implies indicate indicated indicates indicating lead leading leads
likely make makes mean means point pointed pointing points raise raises require required requires reveal reveals show shows
since suggest suggested suggesting suggests support supported supporting supports therefore thus treat treated treats typical
"""
CONTRARY_WORDS = frozenset(_CONTRARY_WORDS.split())
INFERENCE_WORDS = CONTRARY_WORDS.union(_DENYING_WORDS.split(), _RELATING_WORDS.split())

# What nearly every vignette has, without endings: evidence beside something else, or with a number.
FRAME_WORDS = frozenset(
    """
physical exam examination blood pressur puls temperatur respiration respiratory rate heart vital sign laboratory studi serum
count medical past ago medication care primary normal limit significant appear complain start includ time level value result
visit current family follow stat says mmhg mm3 right left pain mother abnormaliti unremarkabl leukocyt hemoglobin hematocrit
platelet
""".split()
)
