"""A boto3 client of one bucket, made with its first use, and the signature of requests that another transport sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

_AMAZON = re.compile(r"\.amazonaws\.com(\.cn)?$")


@dataclass(frozen=True)
class S3Access:
    """How to reach S3; None leaves it to boto3's own search: `AWS_*` variables, profile, instance role."""

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    #: how long opening a connection may take, in seconds
    connect_timeout_seconds: float = 5.0
    #: how long the store may send nothing, in seconds
    read_timeout_seconds: float = 30.0
    #: tries of one call, the first included; botocore retries what S3 documents as transient
    tries: int = 3


@dataclass(frozen=True)
class Connection:
    """A boto3 client, the URL of the bucket, and the credentials."""

    client: Any = field(repr=False)
    #: ends in a slash; a key follows
    base_url: str
    region: str
    session: Any = field(repr=False)

    @classmethod
    def open(cls, bucket: str, access: S3Access) -> Self:
        """Make the client; boto3 is imported here, and nothing is connected yet."""
        import boto3
        from botocore.config import Config

        session = boto3.Session(access.access_key_id, access.secret_access_key)
        region = access.region or session.region_name or "us-east-1"
        config = Config(
            signature_version="s3v4",  # presigned URLs would be of version 2 otherwise
            request_checksum_calculation="when_required",  # the newer default breaks other stores than Amazon's
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": access.tries},
            max_pool_connections=32,
            connect_timeout=access.connect_timeout_seconds,
            read_timeout=access.read_timeout_seconds,
        )

        def client_of(config: Any) -> Any:
            return session.client("s3", endpoint_url=access.endpoint_url, region_name=region, config=config)

        client = client_of(config)
        if _AMAZON.search(client.meta.endpoint_url):
            # Only with this do Amazon's presigned URLs lead to the bucket's own region; other stores may not support it.
            client = client_of(config.merge(Config(s3={"addressing_style": "virtual"})))
        # Botocore decides whether the bucket is part of the host or of the path.
        probe = urlsplit(client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"}))
        return cls(client, f"{probe.scheme}://{probe.netloc}{probe.path.removesuffix('k')}", region, session)

    def signed_headers(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers with Signature Version 4 added, for a third of the CPU time of a presigned URL.

        The plain signer escapes and normalizes paths twice, which changes nothing in ours; it takes the payload's hash from
        the header, where the S3 signer would need the payload.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import NoCredentialsError

        credentials = self.session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        request = AWSRequest(method, url, headers=headers)
        SigV4Auth(credentials.get_frozen_credentials(), "s3", self.region).add_auth(request)
        return dict(request.headers.items())
