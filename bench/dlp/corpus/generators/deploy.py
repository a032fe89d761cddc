"""Files of deployment and pipelines: secrets by reference and as placeholders only."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from .common import (
    SERVICES,
    Family,
    Message,
    hexa,
    message,
    pick,
    semver,
    sentence,
    uuid,
    written,
)

# What stands where a secret belongs, in every style of documentation and of templates.
PLACEHOLDERS = """<password>
<your-password>
<YOUR_API_KEY>
YOUR_API_KEY
your_api_key_here
your-api-key
your-secret-key
my-secret-password
mypassword
myPassword
changeme
change-me
CHANGE_ME
change_this_in_production
replace-me
REPLACE_WITH_YOUR_KEY
insert-token-here
todo
TODO
xxxxxxxx
XXXXXXXXXXXX
xxx-xxx-xxx
********
••••••••
...
…
[REDACTED]
<redacted>
[your key]
{password}
{{ password }}
{{password}}
{{ .Values.db.password }}
{{ vault_db_password }}
{{ lookup('env', 'DB_PASSWORD') }}
${DB_PASSWORD}
${DB_PASSWORD:-}
${DB_PASSWORD:?required}
$DB_PASSWORD
$(DB_PASSWORD)
%DB_PASSWORD%
$env:DB_PASSWORD
${{ secrets.DB_PASSWORD }}
<%= ENV['DB_PASSWORD'] %>
#{password}
@password
:password
?
$1
%s
password
secret
example
placeholder
dummy
test
none
null
''
""
sk-...
sk-xxxxxxxxxxxxxxxx
sk-your-key
ghp_xxxxxxxxxxxxxxxxxxxx
ghp_...
glpat-XXXXXXXXXXXXXXXXXXXX
xoxb-your-token
AKIA...
AKIAXXXXXXXXXXXXXXXX
eyJhbGciOi...
SG.xxx
vault:secret/data/db#password
op://prod/db/password
arn:aws:secretsmanager:eu-west-1:123456789012:secret:db
ssm:/prod/db/password
sops:enc
!vault
file:/run/secrets/db_password
/run/secrets/db_password
from-env
see vault
ask the admin
not-a-real-secret
fake-key-for-tests""".splitlines()


KEYS = """password db_password DB_PASSWORD POSTGRES_PASSWORD MYSQL_ROOT_PASSWORD smtp_password api_key API_KEY apiKey OPENAI_API_KEY ANTHROPIC_API_KEY
secret client_secret SECRET_KEY secretKey JWT_SECRET token AUTH_TOKEN accessToken GITHUB_TOKEN NPM_TOKEN SLACK_BOT_TOKEN AWS_SECRET_ACCESS_KEY passphrase pass
SMTP_PASS REDIS_PASSWORD ADMIN_PASSWORD webhook_secret signing_key private_key""".split()


# What pipelines give the databases of their tests.
TEST_PASSWORDS = ["$DB_PASSWORD", "postgres", "password", "test", '""']


# Settings with such words in their names that are no secrets.
QUIET_SETTINGS = """password_min_length: 12
PASSWORD_RESET_TIMEOUT: 3600
passwordPolicy: strict
password_hash: argon2id
passwordEncoder: bcrypt
password_file: /run/secrets/db_password
existingSecret: db-credentials
existingSecretPasswordKey: postgres-password
secretName: db-tls
secretKey: password
secret_name: prod/db
tokenExpiry: 15m
token_ttl: 24h
token_endpoint: https://id.example.com/oauth/token
token_type: bearer
tokenReviewerJwt: ""
automountServiceAccountToken: false
max_tokens: 4096
tokenizer: cl100k_base
csrf_token_header: X-CSRF-Token
authTokenSecret: keycloak
api_key_header: X-Api-Key
apiKeySecretRef: openai
private_key_path: /etc/ssl/private/key.pem
secret_rotation_days: 90
allow_password_login: false
passwordless: true
disable_password_auth: yes
PasswordAuthentication: no
credentials: file
cvv_required: true
ssn_masking: last4
pass_through: enabled
proxy_pass: http://backend
bypass: internal""".splitlines()


def quiet(rng: random.Random, indent: str = "") -> str:
    """Some of the quiet settings, one a line."""
    return "\n".join(indent + pick(rng, QUIET_SETTINGS) for _ in range(rng.randint(1, 4)))


def kubernetes(rng: random.Random) -> Iterator[Message]:
    """Manifests: environment from secrets, secrets without data, mounts, service accounts."""
    while True:
        name, key = pick(rng, SERVICES), pick(rng, KEYS)
        env: list[dict[str, object]] = [
            {"name": key.upper(), "valueFrom": {"secretKeyRef": {"name": f"{name}-secret", "key": key}}},
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "MAX_TOKENS", "value": str(rng.randrange(9000))},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": f"{key.upper()}_FILE", "value": f"/run/secrets/{key.lower()}"},
            {"name": "DATABASE_URL", "value": "postgres://app:$(DB_PASSWORD)@db:5432/app"},
            {"name": "BUILD", "value": f"{semver(rng)}"},
        ]
        rng.shuffle(env)
        manifest = pick(
            rng,
            [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {
                        "name": name,
                        "uid": uuid(rng),
                        "resourceVersion": str(rng.randrange(10**9)),
                        "labels": {"app": name, "pod-template-hash": hexa(rng, 10)},
                    },
                    "spec": {
                        "replicas": rng.randrange(9),
                        "template": {
                            "spec": {
                                "serviceAccountName": name,
                                "imagePullSecrets": [{"name": "regcred"}],
                                "containers": [
                                    {
                                        "name": name,
                                        "image": f"registry.example.com/{name}:{semver(rng)}@sha256:{hexa(rng, 64)}",
                                        "env": env[: rng.randint(1, 7)],
                                        "envFrom": [{"secretRef": {"name": f"{name}-{key.lower()}"}}],
                                        "volumeMounts": [{"name": "creds", "mountPath": "/run/secrets"}],
                                    }
                                ],
                                "volumes": [{"name": "creds", "secret": {"secretName": "db-password", "defaultMode": 420}}],
                            }
                        },
                    },
                },
                {
                    "apiVersion": "external-secrets.io/v1beta1",
                    "kind": "ExternalSecret",
                    "metadata": {"name": name},
                    "spec": {
                        "refreshInterval": "1h",
                        "secretStoreRef": {"name": "vault", "kind": "SecretStore"},
                        "target": {"name": name},
                        "data": [{"secretKey": key, "remoteRef": {"key": f"prod/{name}", "property": "password"}}],
                    },
                },
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": name},
                    "type": "Opaque",
                    "stringData": {key: pick(rng, PLACEHOLDERS)},
                },
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": name},
                    "data": dict(line.split(": ", 1) for line in quiet(rng).splitlines()),
                },
                {
                    "kind": "PersistentVolume",
                    "spec": {
                        "csi": {
                            "driver": "ebs.csi.aws.com",
                            "volumeHandle": f"vol-{hexa(rng, 17)}",
                            "nodePublishSecretRef": {"name": "creds"},
                        }
                    },
                },
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "Ingress",
                    "metadata": {"annotations": {"nginx.ingress.kubernetes.io/auth-secret": "basic-auth"}},
                    "spec": {"tls": [{"hosts": ["example.com"], "secretName": "example-tls"}]},
                },
            ],
        )
        if rng.random() < 0.5:
            yield message("k8s.apply", {"manifest": manifest})
        else:
            yield written(rng, "k8s.apply", to_yaml(manifest), f"{name}.yaml")


def to_yaml(value: object, indent: int = 0) -> str:
    """JSON values as YAML in blocks."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "\n".join(
            f"{pad}{key}:" + (f" {scalar(item)}" if not isinstance(item, (dict, list)) or not item else "\n" + to_yaml(item, indent + 1))
            for key, item in value.items()
        )
    if isinstance(value, list) and value:
        return "\n".join(
            f"{pad}- " + to_yaml(item, indent + 1).lstrip() if isinstance(item, (dict, list)) else f"{pad}- {scalar(item)}"
            for item in value
        )
    return f"{pad}{scalar(value)}"


def scalar(value: object) -> str:
    """A scalar of YAML."""
    if isinstance(value, str) and value and value[0] not in "*&!%@`'\"{[<?:#|>$" and ": " not in value and not value.isdigit():
        return value
    return json.dumps(value, ensure_ascii=False)


def helm(rng: random.Random) -> Iterator[Message]:
    """Values of Helm charts with their comments."""
    while True:
        parts = []
        for _ in range(rng.randint(1, 4)):
            name = pick(rng, SERVICES)
            parts.append(
                f"## @section {name}\n{name}:\n  image:\n    repository: bitnami/{name}\n    tag: {semver(rng)}\n    pullSecrets: []\n  auth:\n    ## @param {name}.auth.{pick(rng, KEYS)} {pick(rng, ['Password for the user', 'Ignored if existingSecret is set', 'Defaults to a random 10-character string'])}\n    ##\n"
                f"    {pick(rng, KEYS)}: {pick(rng, PLACEHOLDERS)}\n    enablePostgresUser: true\n{quiet(rng, '    ')}\n  resources:\n    limits: {{cpu: {rng.randrange(1, 9)}00m, memory: {rng.randrange(1, 9)}Gi}}\n  nodePort: {rng.randrange(30000, 32767)}\n"
            )
        yield written(rng, "helm.values", "\n".join(parts), "values.yaml")


def compose(rng: random.Random) -> Iterator[Message]:
    """Compose files and Dockerfiles."""
    while True:
        name, key = pick(rng, SERVICES), pick(rng, KEYS)
        text, file = pick(
            rng,
            [
                (
                    f"services:\n  {name}:\n    image: {name}:{semver(rng)}\n    env_file: .env\n    environment:\n      - {key}={pick(rng, ['${' + key + '}', '$' + key, ''])}\n      - {key}_FILE=/run/secrets/{key.lower()}\n    secrets:\n      - {key.lower()}\n      - db_password\n"
                    f"    healthcheck:\n      test: [\"CMD\", \"redis-cli\", \"-a\", \"$$REDIS_PASSWORD\", \"ping\"]\n    ports: [\"{rng.randrange(1024, 65535)}:80\"]\nsecrets:\n  {key.lower()}:\n    file: ./secrets/{key.lower()}.txt\n  db_password:\n    external: true\n",
                    "compose.yaml",
                ),
                (
                    f'FROM python:3.{rng.randrange(8, 14)}-slim AS build\nARG {key}\nENV {key}=${{{key}}}\nRUN --mount=type=secret,id={key.lower()} cat /run/secrets/{key.lower()} > /dev/null\nLABEL org.opencontainers.image.revision={hexa(rng, 40)}\nCOPY --from=node@sha256:{hexa(rng, 64)} /x /y\nHEALTHCHECK CMD pg_isready -U postgres\nCMD ["{name}", "--password-file", "/run/secrets/db"]\n',
                    "Dockerfile",
                ),
                (
                    f"version: '3.{rng.randrange(9)}'\nservices:\n  db:\n    image: postgres:{rng.randrange(10, 17)}\n    environment:\n      POSTGRES_USER: postgres\n      POSTGRES_PASSWORD: {pick(rng, PLACEHOLDERS)}\n      POSTGRES_HOST_AUTH_METHOD: trust\n  {name}:\n    depends_on: [db]\n    command: --requirepass ${{REDIS_PASSWORD}}\n",
                    "docker-compose.yml",
                ),
                (
                    f"{key}={pick(rng, PLACEHOLDERS)}\n# {sentence(rng)}\n{pick(rng, KEYS)}=\nPORT={rng.randrange(65535)}\nTOKEN_TTL=3600\nPASSWORD_MIN_LENGTH=12\nBUILD_ID={rng.randrange(10 ** 10)}\nDATABASE_URL=postgres://user:password@localhost:5432/app\n",
                    ".env.example",
                ),
            ],
        )
        yield written(rng, "deploy.file", text, file)


def pipelines(rng: random.Random) -> Iterator[Message]:
    """GitHub Actions, GitLab CI, Azure, Jenkins, CircleCI."""
    while True:
        key, name = pick(rng, KEYS), pick(rng, SERVICES)
        text, file = pick(
            rng,
            [
                (
                    f"name: {name}\non: [push]\npermissions:\n  id-token: write\n  contents: read\njobs:\n  build:\n    runs-on: ubuntu-{rng.randrange(20, 25)}.04\n    steps:\n      - uses: actions/checkout@{hexa(rng, 40)} # v{rng.randrange(2, 5)}\n        with:\n          token: ${{{{ secrets.GITHUB_TOKEN }}}}\n          persist-credentials: false\n"
                    f'      - uses: docker/login-action@v{rng.randrange(2, 4)}\n        with:\n          username: ${{{{ github.actor }}}}\n          password: ${{{{ secrets.{key.upper()} }}}}\n      - run: echo "${{{{ secrets.{key.upper()} }}}}" | docker login -u ci --password-stdin\n        env:\n          {key.upper()}: ${{{{ secrets.{key.upper()} }}}}\n          RUN: ${{{{ github.run_id }}}}\n    secrets: inherit\n',
                    "ci.yml",
                ),
                (
                    f'variables:\n  POSTGRES_PASSWORD: {pick(rng, TEST_PASSWORDS)}\n  GIT_DEPTH: {rng.randrange(99)}\nimage: docker:{rng.randrange(20, 28)}\nbuild:\n  script:\n    - docker login -u "$CI_REGISTRY_USER" -p "$CI_REGISTRY_PASSWORD" $CI_REGISTRY\n    - curl --header "PRIVATE-TOKEN: ${{CI_JOB_TOKEN}}" "$CI_API_V4_URL/projects/{rng.randrange(10 ** 8)}"\n'
                    f'    - curl --header "JOB-TOKEN: $CI_JOB_TOKEN" -u user:$TOKEN https://example.com\n  id_tokens:\n    VAULT_ID_TOKEN:\n      aud: https://vault.example.com\n  secrets:\n    {key.upper()}:\n      vault: prod/db/password@kv\n',
                    ".gitlab-ci.yml",
                ),
                (
                    f"pipeline {{\n  environment {{\n    {key.upper()} = credentials('{name}-{key.lower()}')\n    BUILD = \"{rng.randrange(10 ** 6)}\"\n  }}\n  stages {{ stage('x') {{ steps {{ withCredentials([usernamePassword(credentialsId: 'nexus', usernameVariable: 'USER', passwordVariable: 'PASS')]) {{ sh 'mvn -Dpassword=$PASS deploy' }} }} }} }}\n}}\n",
                    "Jenkinsfile",
                ),
                (
                    f"steps:\n- task: AzureKeyVault@2\n  inputs:\n    azureSubscription: {name}\n    KeyVaultName: {name}-kv\n    SecretsFilter: '*'\n- script: ./run --password $(db-password)\n  env:\n    {key.upper()}: $({key})\n    SYSTEM_ACCESSTOKEN: $(System.AccessToken)\n",
                    "azure-pipelines.yml",
                ),
                (
                    f"- hosts: {name}\n  vars_files: [vault.yml]\n  tasks:\n    - name: Create the user\n      postgresql_user:\n        name: app\n        password: \"{{{{ vault_{key.lower()} }}}}\"\n      no_log: true\n    - name: Password file\n      copy: {{dest: /etc/pw, content: \"{{{{ lookup('community.hashi_vault.hashi_vault', 'secret=kv/db:password') }}}}\"}}\n",
                    "playbook.yml",
                ),
            ],
        )
        yield written(rng, "ci.file", text, file)


def terraform(rng: random.Random) -> Iterator[Message]:
    """Terraform: variables, resources, plans."""
    while True:
        key, name = pick(rng, KEYS).lower(), pick(rng, SERVICES)
        account = rng.randrange(10**11, 10**12)
        text = pick(
            rng,
            [
                f'variable "{key}" {{\n  type        = string\n  sensitive   = true\n  description = "The password of {name}"\n}}\n\nresource "aws_db_instance" "{name}" {{\n  username = "app"\n  password = var.{key}\n  manage_master_user_password = true\n  instance_class = "db.t3.medium"\n}}\n',
                f'resource "random_password" "{name}" {{\n  length  = {rng.randrange(12, 64)}\n  special = false\n}}\n\nresource "aws_secretsmanager_secret_version" "{name}" {{\n  secret_id     = aws_secretsmanager_secret.{name}.id\n  secret_string = random_password.{name}.result\n}}\n',
                f'data "aws_ssm_parameter" "{key}" {{\n  name = "/prod/{name}/{key}"\n}}\nlocals {{\n  {key} = data.aws_ssm_parameter.{key}.value\n  token = data.vault_generic_secret.{name}.data["token"]\n  account = "{account}"\n}}\n',
                f'  # aws_db_instance.{name} will be updated in-place\n  ~ resource "aws_db_instance" "{name}" {{\n        id       = "db-{hexa(rng, 17).upper()}"\n      ~ password = (sensitive value)\n      + secret   = (known after apply)\n        arn      = "arn:aws:rds:eu-west-1:{account}:db:{name}"\n    }}\n\nPlan: {rng.randrange(9)} to add, {rng.randrange(9)} to change, 0 to destroy.\n',
                f'output "{key}" {{\n  value     = module.{name}.{key}\n  sensitive = true\n}}\n\nOutputs:\n\n{key} = <sensitive>\nendpoint = "{name}.{hexa(rng, 12)}.eu-central-1.rds.amazonaws.com"\n',
                f"provider \"{name}\" {{\n  api_key = {pick(rng, ['var.api_key', 'local.key', 'file(var.key_file)', 'null'])}\n  token   = {pick(rng, ['var.token', 'data.external.token.result.token', 'ephemeral.vault_token.this.token'])}\n}}\n",
            ],
        )
        yield written(rng, "terraform", text, "main.tf")


FAMILIES: dict[str, Family] = {
    "deploy_kubernetes": kubernetes,
    "deploy_helm": helm,
    "deploy_compose": compose,
    "deploy_pipelines": pipelines,
    "deploy_terraform": terraform,
}
