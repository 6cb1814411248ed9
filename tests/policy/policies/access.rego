# Scopes, roles, paths and addresses, as access policies are commonly written.
package test

import rego.v1

default allow := false

allow if {
	some grant in data.grants
	grant.role in input.roles
	input.action in grant.actions
	glob.match(grant.path, ["/"], input.path)
	not blocked
}

allow if {
	every scope in input.scopes { startswith(scope, "stoa:") }
	count(input.scopes) >= 2
	lower(trim_space(input.user)) == input.user
}

blocked if net.cidr_contains("10.0.0.0/8", input.ip)

blocked if regex.match(`^/admin(/|$)`, input.path)

reasons contains msg if {
	some scope in input.scopes
	not scope in {"stoa:read", "stoa:write", "stoa:admin"}
	msg := sprintf("scope %v of %v is unknown to %q", [scope, input.user, input.action])
}

reasons contains "blocked" if blocked

by_length[n] contains scope if {
	some scope in input.scopes
	n := count(scope)
}

segments := [s | some s in split(input.path, "/"); s != ""]

level := "high" if input.number > 50
else := "middle" if input.number > 10
else := "low"

result := {
	"allow": allow,
	"reasons": reasons,
	"by_length": {sprintf("%d", [n]): s | some n, s in by_length},
	"segments": segments,
	"level": level,
	"union": {"stoa:read"} | {s | some s in input.scopes},
	"both": {r | some r in input.roles} & {"admin", "viewer"},
}
