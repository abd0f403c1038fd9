"""Everything that can go wrong, as one tree.

    StreamRecError
    ├── DatasetError        a dataset folder that cannot be used; carries every problem found
    ├── BundleError         a bundle that does not match its manifest, its contract or itself
    ├── StartError          the service cannot start: a port taken, a part that died, a missing program
    ├── PublishError        a publication that was refused; what is served stays as it is
    ├── InvalidRequest      the caller's mistake; never the fault of something behind the service
    └── DependencyError     something behind the service failed; an answer is still given
        ├── Late            no answer within the time allowed
        ├── Busy            not asked, because too many calls to it are still unanswered
        ├── Unreachable     refused, reset, not there
        ├── BreakerOpen     not asked, because it kept failing
        ├── BadAnswer       answered, with something that cannot be used
        │   └── BadScores   a ranker's scores, which cannot decide an order
        ├── OutOfMemory     answered that it has not the memory for so much
        ├── Untrusted       not asked, because what it answered before could not be used
        └── ModelNotFound   the server is well and does not have this version of the model

Foreign exceptions (redis, grpc, faiss) are mapped to these once, at the adapter, with ``from``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class StreamRecError(Exception):
    """The root of the tree."""


class DatasetError(StreamRecError):
    """A dataset folder that cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class BundleError(StreamRecError):
    """A bundle that does not match its manifest, its contract or itself."""


class StartError(StreamRecError):
    """The service, or one of its parts, cannot start."""


class PublishError(StreamRecError):
    """A publication was refused. What is served stays as it is."""


class InvalidRequest(StreamRecError):
    """The caller's mistake. The message never repeats what the caller sent."""


class DependencyError(StreamRecError):
    """Something behind the service failed.

    ``cause`` is the word used in reasons and metric labels; ``is_fault`` says whether the breaker counts it.
    """

    cause: ClassVar[str] = "error"
    is_fault: ClassVar[bool] = True


class Late(DependencyError):
    """No answer within the time allowed."""

    cause: ClassVar[str] = "timeout"


class Busy(DependencyError):
    """Not asked, because too many calls to it are still unanswered: its load is no fault of its own."""

    cause: ClassVar[str] = "busy"
    is_fault: ClassVar[bool] = False


class Unreachable(DependencyError):
    """Refused, reset, or not there."""

    cause: ClassVar[str] = "unavailable"


class BreakerOpen(DependencyError):
    """Not asked at all, because it kept failing."""

    cause: ClassVar[str] = "open"


class BadAnswer(DependencyError):
    """Answered, with something that cannot be used."""

    cause: ClassVar[str] = "bad_answer"


class BadScores(BadAnswer):
    """A ranker's scores, which cannot decide an order: of the wrong count, not finite, or all the same.

    The server is well; its model is marked bad, which is not the breaker's business.
    """

    is_fault: ClassVar[bool] = False


class OutOfMemory(DependencyError):
    """Answered that it has not the memory for so much. Less may do."""

    cause: ClassVar[str] = "out_of_memory"


class Untrusted(DependencyError):
    """Not asked, because what it answered before could not be used."""

    cause: ClassVar[str] = "bad_model"


class ModelNotFound(DependencyError):
    """The server is well and does not have this version of the model: not loaded yet, or no longer. Nobody's fault."""

    cause: ClassVar[str] = "model_not_found"
    is_fault: ClassVar[bool] = False
