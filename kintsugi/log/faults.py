"""What can be wrong with a log, as its readers and its restorer see it.

LogFault
  LogMissing       there is no log: Redis lost it, or the collection is gone
  LogMoved         the log is in another incarnation or epoch; carries them
  LogRestoring     recovery is rebuilding the log
  LogBehind        the log ends before what the reader already holds, or lost its last entries
  LogGap           entries between the reader's position and the log's first are gone; bootstrap from a peer
  LogForked        the log has another history than the reader
  RestoreRefused   somebody else restored the log, or a restoration does not fit what it continues
  RecordUnreadable a record is damaged or of an unknown format version
    UnknownModel   a record has a vector of a model that the reader has not heard of yet

None of them passes by itself by reading again, except LogMoved, LogRestoring and UnknownModel, once the registry is read
again.
Failures to reach Redis are kintsugi.errors.Unavailable instead.
"""


class LogFault(Exception):
    """The root. The message names the values that disagree."""


class LogMissing(LogFault):
    pass


class LogMoved(LogFault):
    def __init__(self, message: str, *, incarnation: int | None, epoch: int) -> None:
        super().__init__(message)
        self.incarnation = incarnation
        self.epoch = epoch


class LogRestoring(LogFault):
    pass


class LogBehind(LogFault):
    pass


class LogGap(LogFault):
    pass


class LogForked(LogFault):
    pass


class RestoreRefused(LogFault):
    pass


class RecordUnreadable(LogFault):
    pass


class UnknownModel(RecordUnreadable):
    def __init__(self, message: str, *, model: int) -> None:
        super().__init__(message)
        self.model = model
