"""Tokens whose form a vendor gives: a prefix, an alphabet, a length."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from .common import ALNUM, BASE32, Family, Message, base64url, chars, digits, hexa, pick, sentence, uuid
from .samples import sample

# Vendor, kind, form: {A36} letters and digits, {H} hexadecimal, {X} capital hexadecimal, {B} URL-safe base64, {D} digits,
# {U} capitals and digits, {T} base32, {L} small letters and digits, {UUID}.
TABLE = """
github github_token ghp_{A36}
github github_token gho_{A36}
github github_token ghu_{A36}
github github_token ghs_{A36}
github github_token ghr_{A36}
github github_token github_pat_{A22}_{A59}
gitlab gitlab_token glpat-{B20}
gitlab gitlab_token glptt-{H40}
gitlab gitlab_token gldt-{B20}
gitlab gitlab_token glrt-{B20}
gitlab gitlab_token glsoat-{B20}
bitbucket service_token ATBB{A24}{X8}
atlassian service_token ATATT3xFfGF0{B171}={X8}
atlassian service_token ATCTT3xFfGN0{B171}={X8}
slack slack_token xoxb-{D12}-{D13}-{A24}
slack slack_token xoxp-{D12}-{D12}-{D13}-{H32}
slack slack_token xoxa-2-{D12}-{D12}-{D13}-{H32}
slack slack_token xoxe.xoxp-1-{A163}
slack slack_token xoxe-1-{A146}
slack slack_token xapp-1-A{U10}-{D13}-{H64}
slack slack_token https://hooks.slack.com/services/T{U10}/B{U10}/{A24}
stripe stripe_key sk_live_{A24}
stripe stripe_key sk_live_51{A97}
stripe stripe_key rk_live_{A24}
stripe stripe_key whsec_{A32}
stripe stripe_key sk_test_51{A97}
google google_api_key AIza{B35}
google service_token GOCSPX-{B28}
google service_token ya29.a0{B140}
google service_token 1//0{B100}
aws aws_key AKIA{T16}
aws aws_key ASIA{T16}
openai openai_key sk-proj-{B74}T3BlbkFJ{B74}
openai openai_key sk-svcacct-{B74}T3BlbkFJ{B74}
openai openai_key sk-admin-{B74}T3BlbkFJ{B74}
openai openai_key sk-{A20}T3BlbkFJ{A20}
anthropic anthropic_key sk-ant-api03-{B93}AA
anthropic anthropic_key sk-ant-admin01-{B93}AA
anthropic anthropic_key sk-ant-oat01-{B93}AA
huggingface huggingface_token hf_{A34}
npm npm_token npm_{A36}
pypi pypi_token pypi-AgEIcHlwaS5vcmcCJ{B150}
rubygems service_token rubygems_{H48}
crates service_token cio{A32}
nuget service_token oy2{L43}
docker service_token dckr_pat_{B27}
docker service_token dckr_oat_{B32}
digitalocean service_token dop_v1_{H64}
digitalocean service_token doo_v1_{H64}
digitalocean service_token dor_v1_{H64}
shopify service_token shpat_{H32}
shopify service_token shpca_{H32}
shopify service_token shppa_{H32}
shopify service_token shpss_{H32}
sendgrid sendgrid_key SG.{B22}.{B43}
mailgun service_token key-{H32}
mailchimp service_token {H32}-us{D1}
brevo service_token xkeysib-{H64}-{A16}
twilio twilio_key SK{H32}
telegram service_token {D10}:AA{B33}
discord service_token M{A23}.{B6}.{B38}
discord service_token https://discord.com/api/webhooks/{D19}/{B68}
teams service_token https://contoso.webhook.office.com/webhookb2/{UUID}@{UUID}/IncomingWebhook/{H32}/{UUID}
zapier service_token https://hooks.zapier.com/hooks/catch/{D7}/{L7}/
dropbox service_token sl.{B136}
square service_token sq0atp-{B22}
square service_token sq0csp-{B43}
square service_token EAAA{B60}
paypal service_token access_token$production${L16}${H32}
plaid service_token access-production-{UUID}
adyen service_token AQE{A80}-{A44}=-{A16}
linear service_token lin_api_{A40}
notion service_token ntn_{D11}{A35}
notion service_token secret_{A43}
airtable service_token pat{A14}.{H64}
asana service_token 1/{D16}:{H32}
figma service_token figd_{B40}
postman service_token PMAK-{H24}-{H34}
newrelic service_token NRAK-{U27}
newrelic service_token NRJS-{H19}
grafana service_token glsa_{A32}_{H8}
grafana service_token glc_eyJ{B120}
sentry service_token sntryu_{H64}
sentry service_token sntrys_eyJ{B140}_{A43}
vault service_token hvs.{B95}
vault service_token hvb.{B140}
terraform service_token {A14}.atlasv1.{B67}
pulumi service_token pul-{H40}
databricks service_token dapi{H32}
doppler service_token dp.pt.{A43}
fly service_token FlyV1 fm2_{B150}
heroku service_token HRKU-AA{B58}
netlify service_token nfp_{A36}
supabase service_token sbp_{H40}
planetscale service_token pscale_tkn_{B43}
planetscale service_token pscale_pw_{B43}
contentful service_token CFPAT-{B43}
cloudflare service_token v1.0-{H24}-{H146}
replicate service_token r8_{A37}
groq service_token gsk_{A52}
perplexity service_token pplx-{A48}
xai service_token xai-{A80}
openrouter service_token sk-or-v1-{H64}
langsmith service_token lsv2_pt_{H32}_{H10}
pinecone service_token pcsk_{A6}_{A63}
nvidia service_token nvapi-{B64}
tavily service_token tvly-{A32}
apify service_token apify_api_{A36}
resend service_token re_{A8}_{A24}
easypost service_token EZAK{A54}
flutterwave service_token FLWSECK-{H32}-X
frameio service_token fio-u-{B64}
adafruit service_token aio_{A28}
alibaba service_token LTAI{A20}
tencent service_token AKID{A32}
age private_key AGE-SECRET-KEY-1{T58}
artifactory service_token AKCp{A69}
azure service_token {A3}8Q~{B34}
buildkite service_token bkua_{H40}
circleci service_token CCIPAT_{A22}_{H40}
clojars service_token CLOJARS_{H60}
dynatrace service_token dt0c01.{T24}.{T64}
duffel service_token duffel_live_{B43}
onepassword service_token ops_eyJ{B250}
prefect service_token pnu_{A36}
readme service_token rdme_{L70}
shippo service_token shippo_live_{H40}
sourcegraph service_token sgp_{H40}
sonarqube service_token squ_{H40}
tailscale service_token tskey-auth-k{A10}CNTRL-{A32}
typeform service_token tfp_{A44}_{A14}
yandex service_token y0_{B55}
launchdarkly service_token sdk-{UUID}
mapbox service_token sk.eyJ{B80}.{B22}
razorpay service_token rzp_live_{A14}
cal service_token cal_live_{H32}
"""
ALPHABETS = {
    "A": ALNUM,
    "X": "0123456789ABCDEF",
    "U": "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "T": BASE32,
    "L": "abcdefghijklmnopqrstuvwxyz0123456789",
}
FORMS = {
    "bare": "{t}",
    "sentence": "The new key is {t}, please rotate the old one.",
    "end of sentence": "Use {t}.",
    "quoted": "key '{t}' works",
    "env": "{V}_KEY={t}",
    "export": 'export {V}_TOKEN="{t}"',
    "yaml": "{v}:\n  key: {t}\n",
    "header": "Authorization: Bearer {t}",
    "curl": "curl -H 'Authorization: Bearer {t}' https://api.{v}.example/v1",
    "url": "https://api.{v}.example/v1/items?key={t}&limit=10",
    "python": 'client = {v}.Client("{t}")',
    "javascript": "const {v} = new Client('{t}');",
    "log": "2026-11-02 10:14:03 DEBUG {v} using {t}",
    "markdown": "- `{t}` ({v})",
    "table": "| {v} | {t} |",
    "xml": '<add name="{v}" value="{t}"/>',
    "option": "run --{v} {t} --verbose",
    "parentheses": "{s} ({t}) {s}",
    "comma": "{v},{t},active",
    "two lines": "{s}\n{t}\n{s}",
    "angle": "<{t}>",
    "colon": "{v}: {t}",
    "escaped json": '{{\\"{v}\\": \\"{t}\\"}}',
}


def templates() -> list[tuple[str, str, str]]:
    """Vendor, kind and form of each line of the table."""
    return [tuple(line.split(" ", 2)) for line in TABLE.strip().splitlines()]  # type: ignore[misc]


def token(rng: random.Random, template: str) -> str:
    """A token of that form."""

    def part(match: re.Match[str]) -> str:
        code, length = match.group(1), int(match.group(2) or 0)
        if code == "UUID":
            return uuid(rng)
        if code == "H":
            return hexa(rng, length)
        if code == "D":
            return digits(rng, length)
        if code == "B":
            return base64url(rng, length)
        return chars(rng, ALPHABETS[code], length)

    return re.sub(r"\{([A-Z]+?)(\d*)\}", part, template)


def vendor_tokens(rng: random.Random) -> Iterator[Message]:
    """A token of each vendor in turn, in text or under a neutral key."""
    table = templates()
    while True:
        for vendor, kind, template in table:
            secret = token(rng, template)
            if rng.random() < 0.25:
                key = pick(rng, ["value", "note", "key", "result", vendor, "config", "credential"])
                data: Any = {key: secret} if rng.random() < 0.6 else {"settings": {vendor: {key: secret}}}
            else:
                form = pick(rng, list(FORMS))
                data = FORMS[form].format(t=secret, v=vendor, V=vendor.upper(), s=sentence(rng))
            yield sample("vendor_tokens", f"{vendor} {template[:12]}", kind, secret, data, pick(rng, ["note", "config", "task"]))


FAMILIES: dict[str, Family] = {"vendor_tokens": vendor_tokens}
