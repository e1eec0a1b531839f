"""How aroused, how pleasant, how dominant does it sound? The choices of ser_wide for three numbers of 1 to 5.

The corpus names them in columns of its own: `--keep arousal valence dominance`. Copy it for other columns or ranges.
"""

from bas.tasks import Regression
from search_spaces.ser_wide import baselines, space

__all__ = ["baselines", "space", "task"]

task = Regression({"arousal": (1, 5), "valence": (1, 5), "dominance": (1, 5)}, name="dimensions")
