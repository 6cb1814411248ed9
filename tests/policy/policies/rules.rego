# What is undefined, what is chosen, and `with`.
package test

import rego.v1

default verdict := "none"

verdict := "token" if input.token.sub == input.user

maybe := input.token.email

nested contains [role, scope] if {
	some role in input.roles
	some scope in input.scopes
	not endswith(scope, role)
}

partial[role] := n if {
	some n, role in unique_roles
}

unique_roles := sort([r | some r in {x | some x in input.roles}])

f(x) := "negative" if x < 0

f(x) := "zero" if x == 0

f(x) := y if {
	x > 0
	y := sprintf("positive %v", [x])
}

first := s if {
	some i
	s := input.scopes[i]
	i == 0
}

mocked := x if {
	x := f(input.number) with input.number as 3
}

replaced := x if {
	x := verdict with input as {"user": "a", "token": {"sub": "a"}}
}

result := {
	"verdict": verdict, "maybe": [m | m := maybe], "nested": nested, "partial": partial,
	"f": f(input.number), "first": [s | s := first], "mocked": mocked, "replaced": replaced,
	"everything": [e | every s in input.scopes { count(s) > 3 }; e := true],
	"compare": [input.user < "m", input.roles == [], [1, 2] < [1, 3], {"a"} == {"a", "a"}, null == false],
}
