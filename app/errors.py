"""Every exception of serving, as one tree. A leaf: it imports only :mod:`model.errors`.

    TorchlightError                 model/errors.py
    ├── StartError                  the service cannot start
    │   ├── InvalidSettings         a setting has a value it cannot have
    │   ├── InvalidKeys             the API keys cannot be read
    │   └── StoreUnavailable        the folder for uploads cannot be used
    ├── UploadError                 the body of a request
    │   ├── UnsupportedMediaType, MalformedForm, WrongField
    │   └── BodyTooLarge, UploadTooSlow
    ├── UnknownHost, WrongKey, TooManyRequests      refused before the body is read
    ├── UnknownImage, UnknownMethod, NotAcceptable      a view that is not there
    ├── NoIndex, NoMistakes, UnknownMistake                     photos beside the checkpoint that are not there
    ├── NotReady, Overloaded, DeadlineExceeded, StoreFull       the service, at this moment
    └── ImageError                  model/errors.py
        └── DecoderFailed           the decoder process crashed or was stopped

None of them knows a status code: ``app/api/problems.py`` holds that table.
"""

from torchlight.model.errors import ImageError, TorchlightError


class StartError(TorchlightError):
    """The service cannot start on this machine with these settings."""


class InvalidSettings(StartError):
    """A setting has a value it cannot have."""


class InvalidKeys(StartError, ValueError):
    """A setting or file of API keys cannot be read. The message never holds a key."""


class StoreUnavailable(StartError):
    """The folder of the uploads cannot be used."""


class UploadError(TorchlightError):
    """A request's body does not hold what the route takes."""


class UnsupportedMediaType(UploadError):
    """The body is neither a form nor an image."""


class MalformedForm(UploadError):
    """The body is not the form that its content type announces, or has more parts than it may."""


class WrongField(UploadError):
    """The form has no file where one is expected, or too many."""


class BodyTooLarge(UploadError):
    """The body has more bytes than the limit."""


class UploadTooSlow(UploadError):
    """The body arrives slower than the slowest upload that is waited for."""


class UnknownHost(TorchlightError):
    """A request names a host that is not in ``TORCHLIGHT_ALLOWED_HOSTS``."""


class WrongKey(TorchlightError):
    """A request has no API key, or one that is not known."""


class TooManyRequests(TorchlightError):
    """A client is over its rate limit."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownImage(TorchlightError):
    """No stored image has that id, or it was removed."""


class UnknownMethod(TorchlightError):
    """No attribution method has that name."""


class NoIndex(TorchlightError):
    """This service has no index of images."""


class NoMistakes(TorchlightError):
    """This service has no photos that were answered wrongly."""


class UnknownMistake(TorchlightError):
    """No photo that was answered wrongly has that number."""


class NotAcceptable(TorchlightError):
    """The view has no form that the client takes."""


class NotReady(TorchlightError):
    """The service cannot answer yet, or will not any more."""


class Overloaded(TorchlightError):
    """No room: too much work waits, memory is short, or the service is stopping."""


class DeadlineExceeded(TorchlightError):
    """The answer was not ready in time."""


class StoreFull(TorchlightError):
    """The disk has no room for the upload."""


class DecoderFailed(ImageError):
    """The decoder crashed on this file, or did not come to an end with it."""
