"""What the service was told and nothing else: for those who have no log but what they send to POST /events.

In: the parts that are sealed before each run (recops/data/feedback.py). Items come from POST /items or a file of their
own only once they have been served; a table of items is not part of this log.
"""

from pathlib import Path

import duckdb

from recops.data.feedback import Feedback, relation
from recops.errors import CallError
from recops.params import Group


class FeedbackLog:
    class Options(Group):
        pass

    download = "tell the service what users do (POST /events); `recops run` seals it into data/feedback"

    def __init__(self, options: Options, path: Path | None) -> None:
        self.folder = Path() if path is None else path

    def relations(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The events of all parts. Raises CallError where there are none, or one is not what was sealed."""
        feedback = Feedback.read(self.folder / ".recops" / "feedback.json")
        found = relation(self.folder / "data" / "feedback", feedback.parts, keeps_made_ids=True)
        if found is None:
            raise CallError(f"{self.folder / 'data' / 'feedback'}: no events yet; {self.download}")
        return {"events": found}
