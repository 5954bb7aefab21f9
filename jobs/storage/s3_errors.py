"""Why an S3 call failed, in our words: each reason says what to do next, and whether the same call may work later.

A foreign message is never repeated: it can hold a signature or a secret.
"""

from __future__ import annotations

import re
from typing import Any

from .objects import NO_OBJECT

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_BUCKET = (
    "the bucket does not exist; create it with `darkroom storage init`, or correct DARKROOM_STORAGE_URL",
    False,
)
_DENIED = (
    "access denied; the key needs s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject in it",
    False,
)
_BAD_KEY = (f"the store does not know this access key or its secret; {_SET_CREDENTIALS}", False)
_BAD_REGION = ("the bucket is in another region; set AWS_DEFAULT_REGION", False)

#: reasons by the store's error code, or by the bare HTTP status
_RESPONSES = {
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": NO_OBJECT,
    "404": (
        "the bucket or the object does not exist; `darkroom storage init` creates the bucket of DARKROOM_STORAGE_URL",
        False,
    ),
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _BAD_KEY,
    "SignatureDoesNotMatch": _BAD_KEY,
    "ExpiredToken": ("the temporary credentials have expired; renew AWS_SESSION_TOKEN", True),
    "RequestTimeTooSkewed": ("the clock of this host is wrong by more than 15 minutes; set it", True),
    "AuthorizationHeaderMalformed": _BAD_REGION,
    "PermanentRedirect": _BAD_REGION,
    "301": _BAD_REGION,
    "307": (
        "the store redirects elsewhere, as new buckets do for some minutes; try again, or set AWS_DEFAULT_REGION",
        True,
    ),
    "BucketAlreadyExists": (
        "the bucket belongs to another account; choose another name in DARKROOM_STORAGE_URL",
        False,
    ),
    "NotImplemented": ("the store does not support conditional writes (If-None-Match); use one that does", False),
}


def status_of(error: Any) -> int:
    """The HTTP status of a botocore ClientError."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: Any) -> str:
    """The store's own code of a botocore ClientError, for example `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def reason(error: Exception) -> tuple[str, bool]:
    """Why a call of boto3 failed, and whether the same call may work later."""
    from botocore import exceptions as foreign

    name = type(error).__name__
    if isinstance(error, foreign.ClientError):
        return response_reason(status_of(error), code_of(error))
    if isinstance(error, (foreign.NoCredentialsError, foreign.PartialCredentialsError)):
        return f"no credentials ({name}); {_SET_CREDENTIALS}", False
    if isinstance(error, (foreign.ConnectionError, foreign.HTTPClientError, foreign.IncompleteReadError, OSError)):
        return f"the store did not answer ({name}); check that it runs and that AWS_ENDPOINT_URL_S3 is right", True
    if isinstance(error, (foreign.CredentialRetrievalError, foreign.MetadataRetrievalError)):
        return f"the credentials could not be fetched ({name}); try again, or check the role of this instance", True
    if isinstance(error, ValueError):
        return (
            f"boto3 refuses the configuration ({name}); check AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION and AWS_PROFILE",
            False,
        )
    return f"boto3 failed ({name}); check the AWS_* variables, and that AWS_ENDPOINT_URL_S3 is an S3 store", False


def response_reason(status: int, code: str) -> tuple[str, bool]:
    """What a response of the store means; `code` is the store's own, empty in responses to HEAD."""
    if known := _RESPONSES.get(code) or _RESPONSES.get(str(status)):
        return known
    retryable = status >= 500 or status in {408, 409, 425, 429}
    word = code if _WORD.fullmatch(code) else "without a reason"
    return (
        f"the store answered {status} {word}; {'try again later' if retryable else 'its own log says why'}",
        retryable,
    )
