"""The synthetic clinic: a closed world of conditions and findings in which every claim has an exact verdict. Teaching
data, not medical advice.
"""

from clinical_r1.clinic.cases import Case, load_set
from clinical_r1.clinic.knowledge import knowledge_base
from clinical_r1.clinic.verdicts import measure

__all__ = ["Case", "knowledge_base", "load_set", "measure"]
