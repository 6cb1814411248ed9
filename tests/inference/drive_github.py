"""A scripted client of a part of GitHub's REST API, served by Prism from GitHub's own description.

Nearly everything in its paths is a name: owners, repositories, branches, topics, labels, licences.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from urllib.parse import quote

from service_client import Client
from specification import VARIABLE

# What a dashboard, a release bot and a person on the site would call.
OPERATIONS = (
    "GET /emojis", "GET /licenses", "GET /licenses/{license}", "GET /gitignore/templates", "GET /gitignore/templates/{name}",
    "GET /codes_of_conduct/{key}", "GET /users/{username}", "GET /users/{username}/repos", "GET /users/{username}/followers",
    "GET /users/{username}/following/{target_user}", "GET /orgs/{org}", "GET /orgs/{org}/repos", "GET /orgs/{org}/members/{username}",
    "GET /orgs/{org}/teams", "POST /orgs/{org}/teams", "GET /orgs/{org}/teams/{team_slug}", "GET /orgs/{org}/teams/{team_slug}/members",
    "PUT /orgs/{org}/teams/{team_slug}/memberships/{username}", "DELETE /orgs/{org}/teams/{team_slug}", "GET /repos/{owner}/{repo}",
    "PATCH /repos/{owner}/{repo}", "GET /repos/{owner}/{repo}/topics", "PUT /repos/{owner}/{repo}/topics", "GET /repos/{owner}/{repo}/branches",
    "GET /repos/{owner}/{repo}/branches/{branch}", "POST /repos/{owner}/{repo}/branches/{branch}/rename", "GET /repos/{owner}/{repo}/commits",
    "GET /repos/{owner}/{repo}/commits/{ref}", "GET /repos/{owner}/{repo}/compare/{basehead}", "GET /repos/{owner}/{repo}/labels",
    "POST /repos/{owner}/{repo}/labels", "GET /repos/{owner}/{repo}/labels/{name}", "PATCH /repos/{owner}/{repo}/labels/{name}",
    "DELETE /repos/{owner}/{repo}/labels/{name}", "GET /repos/{owner}/{repo}/issues", "POST /repos/{owner}/{repo}/issues",
    "GET /repos/{owner}/{repo}/issues/{issue_number}", "POST /repos/{owner}/{repo}/issues/{issue_number}/comments",
    "GET /repos/{owner}/{repo}/releases", "GET /repos/{owner}/{repo}/releases/latest", "GET /repos/{owner}/{repo}/releases/tags/{tag}",
    "GET /repos/{owner}/{repo}/releases/{release_id}", "GET /repos/{owner}/{repo}/actions/workflows/{workflow_id}",
    "GET /repos/{owner}/{repo}/actions/variables/{name}", "GET /repos/{owner}/{repo}/environments/{environment_name}",
    "GET /repos/{owner}/{repo}/collaborators/{username}", "GET /search/repositories",
)
OWNERS = ("acme-labs", "northwind", "octo-org", "blue-heron", "tiny-tools", "kestrel", "openmesh", "rivet-works", "paperplane", "lumen-io")
REPOSITORIES = ("billing-service", "website", "infra", "design-system", "mobile-app", "docs", "kube-config", "payments", "data-pipeline", "hello-world", "cli", "terraform-modules")
PEOPLE = ("mnowak", "j-larsen", "sofia-r", "tdupont", "hgarcia", "li-wei", "akowalska", "bvogel", "rpatel", "ekim", "olafur", "zahra-m")
VALUES = {
    "username": PEOPLE, "target_user": PEOPLE, "owner": OWNERS, "org": OWNERS, "repo": REPOSITORIES,
    "team_slug": ("platform", "frontend", "security-champions", "release-managers", "sre", "data-eng", "mobile", "docs-writers"),
    "branch": ("main", "develop", "release-2.4", "feature-checkout", "fix-login-loop", "gh-pages", "hotfix-7", "renovate"),
    "ref": ("main", "v2.3.1", "6dcb09b5b57875f334f61aebed695e2e4193db5e", "a84d88e7554fc1fa21bcbc4efae3c782a70d2b9d", "develop", "0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f60718293"),
    "basehead": ("main...develop", "v2.3.0...v2.3.1", "main...fix-login-loop", "develop...release-2.4"),
    "tag": ("v1.0.0", "v2.3.1", "2026.04", "nightly", "v2.4.0-rc.1", "cli-v0.9.0"),
    "license": ("mit", "apache-2.0", "gpl-3.0", "bsd-3-clause", "mpl-2.0", "unlicense", "isc", "agpl-3.0"),
    "key": ("contributor_covenant", "citizen_code_of_conduct", "django"),
    "environment_name": ("production", "staging", "preview", "qa", "perf", "canary"),
    "workflow_id": ("ci.yml", "release.yml", "161335", "docs.yml", "98211", "nightly.yaml"),
    "release_id": tuple(str(n) for n in range(82001, 82060, 7)), "issue_number": tuple(str(n) for n in range(3, 900, 41)),
}
NAMES = {
    "labels": ("bug", "enhancement", "good-first-issue", "wontfix", "priority-high", "needs-triage", "question", "dependencies"),
    "variables": ("REGION", "DEPLOY_ENV", "NODE_VERSION", "CACHE_BUCKET", "FEATURE_FLAGS", "LOG_LEVEL"),
    "templates": ("C", "Rust", "Python", "Go", "Node", "Java", "Haskell", "Terraform"),
}
BODIES = {
    "POST /orgs/{org}/teams": lambda rng: {"name": rng.choice(VALUES["team_slug"]), "privacy": rng.choice(["closed", "secret"])},
    "PUT /orgs/{org}/teams/{team_slug}/memberships/{username}": lambda rng: {"role": rng.choice(["member", "maintainer"])},
    "PATCH /repos/{owner}/{repo}": lambda rng: {"description": "Updated by the bot", "has_issues": rng.random() < 0.5},
    "PUT /repos/{owner}/{repo}/topics": lambda rng: {"names": rng.sample(["rust", "ebpf", "openapi", "gateway", "http"], 2)},
    "POST /repos/{owner}/{repo}/branches/{branch}/rename": lambda rng: {"new_name": rng.choice(VALUES["branch"])},
    "POST /repos/{owner}/{repo}/labels": lambda rng: {"name": rng.choice(NAMES["labels"]), "color": f"{rng.getrandbits(24):06x}"},
    "PATCH /repos/{owner}/{repo}/labels/{name}": lambda rng: {"color": f"{rng.getrandbits(24):06x}", "description": "Recoloured"},
    "POST /repos/{owner}/{repo}/issues": lambda rng: {"title": "Build fails on a clean checkout", "body": "See the log", "labels": rng.sample(NAMES["labels"], 2)},
    "POST /repos/{owner}/{repo}/issues/{issue_number}/comments": lambda rng: {"body": rng.choice(["Same here", "Fixed on main", "Please add the version"])},
}
QUERIES = {
    "GET /users/{username}/repos": {"type": ("all", "owner", "member"), "sort": ("created", "updated", "pushed", "full_name"), "per_page": (30, 50, 100), "page": (1, 2, 3)},
    "GET /repos/{owner}/{repo}/issues": {"state": ("open", "closed", "all"), "labels": NAMES["labels"], "per_page": (30, 100), "since": ("2026-01-01T00:00:00Z", "2026-06-15T12:30:00Z")},
    "GET /repos/{owner}/{repo}/commits": {"sha": VALUES["branch"], "author": PEOPLE, "per_page": (30, 100)},
    "GET /orgs/{org}/repos": {"type": ("all", "public", "sources"), "page": (1, 2, 3, 4)},
    "GET /orgs/{org}/teams": {"per_page": (30, 100), "page": (1, 2)},
    "GET /repos/{owner}/{repo}/releases": {"per_page": (10, 30)},
}


def cut_description(source: Path, target: Path) -> None:
    """Keeps the chosen operations and the components that they reach."""
    raw = json.loads(source.read_text(encoding="utf-8"))
    paths: dict[str, dict] = {}
    for operation in OPERATIONS:
        method, _, path = operation.partition(" ")
        paths.setdefault(path, {})[method.lower()] = raw["paths"][path][method.lower()]
    kept: dict[str, dict] = {}
    todo = [paths]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/components/"):
                _, _, kind, name = reference.split("/")
                if name not in kept.setdefault(kind, {}):
                    kept[kind][name] = raw["components"][kind][name]
                    todo.append(kept[kind][name])
            todo += node.values()
    out = {**{k: v for k, v in raw.items() if k not in ("paths", "components", "webhooks", "x-webhooks")}, "paths": paths, "components": kept}
    target.write_text(json.dumps(out), encoding="utf-8")


def drive(client: Client, rounds: int, seed: str = "github") -> None:
    rng = random.Random(seed)
    token = "ghp_" + "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(36))
    for _ in range(rounds):
        for operation in rng.sample(OPERATIONS, len(OPERATIONS)):
            method, _, template = operation.partition(" ")
            before = template.split("/")[-2]
            path = VARIABLE.sub(lambda hole: quote(rng.choice(NAMES.get(before, ()) if hole.group() == "{name}" else VALUES[hole.group()[1:-1]])), template)
            query = {k: rng.choice(v) for k, v in QUERIES.get(operation, {}).items() if rng.random() < 0.6}
            if operation == "GET /search/repositories":
                query = {"q": rng.choice(["ebpf", "openapi gateway", "language:rust"])} | ({"sort": "stars"} if rng.random() < 0.4 else {})
            body = BODIES[operation](rng) if operation in BODIES else None
            headers = {"Accept": "application/vnd.github+json, application/json;q=0.9", "Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}
            client.send(method, path, query=query, headers=headers, body=body)
