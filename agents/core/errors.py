"""Errors, split by who must act on them."""


class TradingError(Exception):
    """Anything that Quartet raises on purpose."""


class ConfigError(TradingError):
    """The operator must change a setting; the message names the field and the mend."""


class DataError(TradingError):
    """What came in cannot be believed."""


class StaleBook(DataError):
    """The book is older than its bound."""


class Gap(DataError):
    """Messages or rows are missing."""


class NotFinite(DataError):
    """A NaN or an infinity where a number belongs."""


class VenueError(TradingError):
    """The exchange said no, or said nothing."""


class Rejected(VenueError):
    """The exchange refused for good; sending the same again is pointless."""


class Throttled(VenueError):
    """Too many requests: wait, then go on."""


class Unreachable(VenueError):
    """No answer, and nothing was asked that could have had an effect."""


class OutcomeUnknown(VenueError):
    """No answer to a request that may have had an effect: never evidence that it had none."""


class ModelError(TradingError):
    """A network, its weights or its numbers are unfit."""


class SpecMismatch(ModelError):
    """Weights, buffer or observation were made for another set of columns."""


class Diverged(ModelError):
    """The learner's numbers left the ground."""


class ReplayDiffers(TradingError):
    """The engine said something else than the journal; the message names the first difference."""
