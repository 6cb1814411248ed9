# Who may do what, by scope and role. Used where no other policy is configured.
#
# An action is what the caller wants to do (Read, CreateApi, ViewAudit, ...); where the request is
# plain HTTP it follows from the method: GET and HEAD Read, POST Create, PUT and PATCH Update,
# DELETE Delete.
package stoa.authz

import rego.v1

default allow := false

allow if is_admin

allow if {
	"tenant-admin" in input.roles
	"stoa:write" in input.scopes
}

allow if {
	"devops" in input.roles
	"stoa:deploy" in input.scopes
}

allow if {
	some scope in input.scopes
	input.action in actions[scope]
}

is_admin if "stoa:admin" in input.scopes

is_admin if "cpi-admin" in input.roles

actions := {
	"stoa:read": {"Read", "List", "Search", "ViewMetrics", "ViewLogs"},
	"stoa:write": {
		"Create", "Update", "Delete",
		"CreateApi", "UpdateApi", "DeleteApi", "PublishApi", "DeprecateApi",
	},
	"stoa:execute": {"Read", "List", "Search", "Subscribe", "Unsubscribe", "ManageSubscription"},
	"stoa:deploy": {"PublishApi", "DeprecateApi"},
	"stoa:audit": {"ViewMetrics", "ViewLogs", "ViewAudit"},
}

denial_reason := sprintf("%v is not allowed with the scopes and roles of this token", [input.action]) if {
	not allow
}
