"""The answer to one practice."""

from dataclasses import dataclass

DONE, NOT_DONE, DOES_NOT_APPLY = "done", "not done", "does not apply"


@dataclass(frozen=True)
class Answer:
    """Whether a practice is done. ``why`` is the evidence, what is missing, or the reason why the
    practice does not apply. ``command`` would do what is not done.
    """

    answer: str
    why: str
    command: str | None = None

    @property
    def done(self) -> bool:
        return self.answer == DONE


def done(evidence: str) -> Answer:
    return Answer(DONE, evidence)


def not_done(missing: str, command: str) -> Answer:
    return Answer(NOT_DONE, missing, command)


def does_not_apply(reason: str) -> Answer:
    return Answer(DOES_NOT_APPLY, reason)
