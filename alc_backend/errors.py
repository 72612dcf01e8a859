"""The errors that users meet. Each message names the input and the remedy.

AlcError
├── SettingsError       a setting is missing, wrong, or contradicts another
├── DatasetError        a dataset folder cannot be imported, written or checked
├── NotFoundError       a project, round, query or file does not exist
├── RoundError          a round cannot do what was asked of it
├── CancelledError      an admin cancelled the work (no failure)
├── TrainingError       the network cannot be trained, saved or loaded
├── FoundationError     a foundation model cannot be loaded, or cannot detect a class
│   └── WeightsError        its files are missing or wrong, or cannot be fetched
├── StorageError        files cannot be written or read (disk full, storage away)
├── PlatformError       where annotators work, a request is refused, or something unexpected held
│   ├── LabelStudioError    Label Studio does so
│   │   ├── LabelStudioAwayError   it does not answer, or is overloaded: try again later
│   │   └── AnswerTooLargeError    what it answers is larger than what is read
│   └── CvatError           CVAT does so
│       └── CvatAwayError          it does not answer, or is overloaded: try again later
└── ServiceError        a process the backend needs (Redis, Label Studio) does not start
"""

from __future__ import annotations


class AlcError(Exception):
    """Base of all errors whose message is meant for the user."""


class SettingsError(AlcError):
    """A setting is missing, wrong, or contradicts another."""


class DatasetError(AlcError):
    """A dataset folder cannot be imported, written or checked."""


class NotFoundError(AlcError):
    """A project, round, query or file does not exist."""


class RoundError(AlcError):
    """A round cannot do what was asked of it."""


class CancelledError(AlcError):
    """An admin cancelled the work."""


class TrainingError(AlcError):
    """The network cannot be trained, saved or loaded."""


class FoundationError(AlcError):
    """A foundation model cannot be loaded, or cannot detect a class."""


class WeightsError(FoundationError):
    """The files of a foundation model are missing or wrong, or cannot be fetched."""


class StorageError(AlcError):
    """Files cannot be written or read (disk full, storage away)."""


class PlatformError(AlcError):
    """Where annotators work, a request is refused, or something unexpected is held.

    ``status`` is the HTTP status of the answer; None where no answer was at fault.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class PlatformAwayError(PlatformError):
    """Where annotators work, nothing answers, or too much is asked: the same may work later."""


class LabelStudioError(PlatformError):
    """Label Studio refuses a request, or holds something unexpected."""


class LabelStudioAwayError(LabelStudioError, PlatformAwayError):
    """Label Studio does not answer, or is overloaded: the same may work later."""


class CvatError(PlatformError):
    """CVAT refuses a request, or holds something unexpected."""


class CvatAwayError(CvatError, PlatformAwayError):
    """CVAT does not answer, or is overloaded: the same may work later."""


class AnswerTooLargeError(LabelStudioError):
    """An answer of Label Studio is larger than what is read of one."""


class ServiceError(AlcError):
    """A process the backend needs does not start."""
