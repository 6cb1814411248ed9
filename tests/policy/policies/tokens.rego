# io.jwt.* on good tokens and bad ones.
package test

import rego.v1

decoded := [d | d := io.jwt.decode(input.token)]

verified := [d |
	some c in data.constraints
	d := io.jwt.decode_verify(input.token, c)
]

algorithms := {
	"rs256": [v | some k in data.keys; v := io.jwt.verify_rs256(input.token, k)],
	"ps256": [v | some k in data.keys; v := io.jwt.verify_ps256(input.token, k)],
	"rs512": [v | some k in data.keys; v := io.jwt.verify_rs512(input.token, k)],
	"es256": [v | some k in data.keys; v := io.jwt.verify_es256(input.token, k)],
	"es384": [v | some k in data.keys; v := io.jwt.verify_es384(input.token, k)],
	"eddsa": [v | some k in data.keys; v := io.jwt.verify_eddsa(input.token, k)],
	"hs256": [v | some k in data.secrets; v := io.jwt.verify_hs256(input.token, k)],
	"hs512": [v | some k in data.secrets; v := io.jwt.verify_hs512(input.token, k)],
}

result := {"decoded": decoded, "verified": verified, "algorithms": algorithms}
