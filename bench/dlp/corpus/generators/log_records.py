"""Records that systems write as objects: events of Kubernetes, CloudTrail."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    FIRST,
    NOUNS,
    SERVICES,
    Family,
    Message,
    base64url,
    chars,
    hexa,
    host,
    identifier,
    ip,
    iso,
    pick,
    uuid,
    when,
    written,
)


def kubernetes_events(rng: random.Random) -> Iterator[Message]:
    """Events of Kubernetes, as kubectl prints them and as objects."""
    while True:
        pod = host(rng)
        reason, text = pick(
            rng,
            [
                ("FailedMount", f'MountVolume.SetUp failed for volume "creds" : secret "{pick(rng, SERVICES)}-password" not found'),
                ("Pulled", f'Successfully pulled image "app:{rng.randrange(99)}" in {rng.random() * 9:.3f}s'),
                ("BackOff", "Back-off restarting failed container"),
                ("Unhealthy", f"Readiness probe failed: HTTP probe failed with statuscode: {pick(rng, [500, 503])}"),
                ("Scheduled", f"Successfully assigned prod/{pod} to {host(rng)}"),
                ("Failed", "Error: couldn't find key password in Secret prod/db"),
                ("Killing", "Stopping container app"),
                ("FailedCreate", "Error creating: pods is forbidden: service account token not provided"),
                ("SuccessfulRescale", f"New size: {rng.randrange(20)}; reason: cpu resource utilization above target"),
            ],
        )
        if rng.random() < 0.5:
            yield {
                "message_type": "k8s.event",
                "data": {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {
                        "name": f"{pod}.{hexa(rng, 16)}",
                        "namespace": "prod",
                        "uid": uuid(rng),
                        "resourceVersion": str(rng.randrange(10**9)),
                    },
                    "involvedObject": {"kind": "Pod", "name": pod, "uid": uuid(rng), "fieldPath": "spec.containers{app}"},
                    "reason": reason,
                    "message": text,
                    "count": rng.randrange(99),
                    "firstTimestamp": iso(when(rng)),
                    "source": {"component": "kubelet", "host": host(rng)},
                },
            }
        else:
            lines = ["LAST SEEN   TYPE      REASON   OBJECT   MESSAGE"] + [
                f"{rng.randrange(59)}m  Normal  {reason}  pod/{pod}  {text}" for _ in range(rng.randint(1, 12))
            ]
            yield written(rng, "k8s.events", "\n".join(lines))


def cloudtrail(rng: random.Random) -> Iterator[Message]:
    """Records of AWS CloudTrail; keys appear as their masked ids only."""
    while True:
        account = str(rng.randrange(10**11, 10**12))
        name, source = pick(
            rng,
            [
                ("GetSecretValue", "secretsmanager"),
                ("AssumeRole", "sts"),
                ("PutObject", "s3"),
                ("CreateUser", "iam"),
                ("ChangePassword", "iam"),
                ("GetParameter", "ssm"),
                ("RunInstances", "ec2"),
                ("Decrypt", "kms"),
                ("ConsoleLogin", "signin"),
                ("UpdateLoginProfile", "iam"),
            ],
        )
        user = pick(rng, FIRST).lower()
        request: dict[str, object] = {
            "GetSecretValue": {"secretId": "prod/db/password", "versionStage": "AWSCURRENT"},
            "ChangePassword": None,
            "GetParameter": {"name": "/prod/db/password", "withDecryption": True},
            "AssumeRole": {"roleArn": f"arn:aws:iam::{account}:role/{identifier(rng)}", "roleSessionName": user},
            "UpdateLoginProfile": {"userName": user, "passwordResetRequired": True},
        }.get(name, {"bucketName": identifier(rng), "key": f"{pick(rng, NOUNS)}/{uuid(rng)}"})  # type: ignore[assignment]
        record = {
            "eventVersion": "1.09",
            "userIdentity": {
                "type": "IAMUser",
                "principalId": "AIDA" + chars(rng, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
                "arn": f"arn:aws:iam::{account}:user/{user}",
                "accountId": account,
                "userName": user,
            },
            "eventTime": iso(when(rng)),
            "eventSource": f"{source}.amazonaws.com",
            "eventName": name,
            "awsRegion": "eu-central-1",
            "sourceIPAddress": ip(rng),
            "userAgent": "aws-cli/2.15.0",
            "requestParameters": request,
            "responseElements": None if rng.random() < 0.6 else {"x-amz-id-2": base64url(rng, 76)},
            "requestID": uuid(rng),
            "eventID": uuid(rng),
            "readOnly": rng.random() < 0.5,
            "errorMessage": pick(rng, [None, "Failed authentication", "Access denied"]),
            "recipientAccountId": account,
            "additionalEventData": {"MFAUsed": "Yes", "LoginTo": "https://console.aws.amazon.com/console/home"},
            "tlsDetails": {"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256"},
        }
        yield {"message_type": "cloudtrail", "data": record if rng.random() < 0.6 else {"text": json.dumps({"Records": [record]})}}


FAMILIES: dict[str, Family] = {
    "logs_kubernetes_events": kubernetes_events,
    "logs_cloudtrail": cloudtrail,
}
