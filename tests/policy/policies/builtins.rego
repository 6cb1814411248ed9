# One of each kind of builtin, on values that requests have.
package test

import rego.v1

strings_of := {
	"upper": [x | x := upper(input.user)],
	"concat": [x | x := concat(",", input.scopes)],
	"indexof": [x | x := indexof(input.path, "/o")],
	"replace": [x | x := replace(input.path, "/", "::")],
	"substring": [x | x := substring(input.path, 1, 4)],
	"trim": [x | x := trim(input.path, "/")],
	"trim_prefix": [x | x := trim_prefix(input.path, "/orders")],
	"reverse": [x | x := strings.reverse(input.user)],
	"count": [x | x := strings.count(input.path, "/")],
	"contains": [x | x := contains(input.path, "orders")],
	"endswith": [x | x := endswith(input.path, "7")],
	# regorus writes a negative %d with two signs, and has no widths.
	"sprintf": [x | x := sprintf("%s|%d|%v|%x", [input.user, abs(input.number), input.roles, abs(input.number)])],
	"format_int": [x | x := format_int(input.number, 16)],
	"any_prefix": [x | x := strings.any_prefix_match(input.scopes, ["stoa:r", "x"])],
}

numbers_of := {
	"abs": [x | x := abs(input.number)],
	"round": [x | x := round(input.ratio)],
	# OPA rounds numbers between -1 and 0 the wrong way, to 1 and to 0; regorus does not.
	"ceil": [x | x := ceil(abs(input.ratio))],
	"floor": [x | x := floor(abs(input.ratio))],
	"range": [x | x := numbers.range(input.number, input.number + 3)],
	"step": [x | x := numbers.range_step(0, 10, 3)],
	"sum": [x | x := sum([input.number, input.ratio, 1])],
	"product": [x | x := product([input.number, 3])],
	"max": [x | x := max([input.number, 10])],
	"min": [x | x := min([input.number, 10])],
	"mod": [x | x := (input.number + 1000) % 7],
	"div": [x | x := input.number / 4],
	"and": [x | x := bits.and(input.number + 1000, 255)],
	"lsh": [x | x := bits.lsh(1, 10)],
	"sort": [x | x := sort([input.number, 3, input.ratio, 1])],
}

encodings := {
	"b64": [x | x := base64.encode(input.user)],
	"b64url": [x | x := base64url.encode_no_pad(input.user)],
	"hex": [x | x := hex.encode(input.user)],
	"back": [x | x := base64.decode(base64.encode(input.path))],
	"json": [x | x := json.unmarshal(json.marshal(input)) == input],
	"url": [x | x := urlquery.encode(input.path)],
	"marshal": [x | x := json.marshal(input.roles)],
}

objects_of := {
	"get": [x | x := object.get(input, ["token", "sub"], "nobody")],
	"keys": [x | x := object.keys(input)],
	"union": [x | x := object.union(input.token, {"x": 1})],
	"remove": [x | x := object.remove(input, ["token", "scopes", "roles"])],
	"filter": [x | x := json.filter(input, ["token/sub"])],
	"subset": [x | x := object.subset(input, {"user": input.user})],
	"walked": [x | x := count([p | walk(input, [p, _])])],
	"types": [x | x := [type_name(v) | some k in sort(object.keys(input)); v := input[k]]],
	"patch": [x | x := json.patch(input.token, [{"op": "add", "path": "/a", "value": 1}])],
}

others := {
	"regex": [x | x := regex.find_n(`[a-z]+`, input.path, -1)],
	"regex_replace": [x | x := regex.replace(input.path, `\d+`, "{id}")],
	"regex_split": [x | x := regex.split(`/`, input.path)],
	"submatch": [x | x := regex.find_all_string_submatch_n(`/(\w)(\w*)`, input.path, -1)],
	"semver": [x | x := semver.compare("1.2.3", "1.10.0")],
	"time": [x | x := time.parse_rfc3339_ns("2026-11-26T20:00:00Z") + input.number],
	"date": [x | x := time.date(1772236790000000000 + (input.number * 86400000000000))],
	"clock": [x | x := time.clock(1772236790000000000)],
	"duration": [x | x := time.parse_duration_ns("1h30m")],
	"units": [x | x := units.parse_bytes("10MiB")],
	"cidr": [x | x := net.cidr_contains("192.0.2.0/24", input.ip)],
	"reachable": [x | x := graph.reachable({"a": {"b"}, "b": {"c"}, "c": set()}, {"a"})],
	"yaml": [x | x := yaml.unmarshal("a: [1, two]")],
	"to_number": [x | x := to_number("12.5")],
	"number_of_user": [x | x := count([n | n := to_number(input.user)])],
	"bad_base64": [x | x := count([x | x := base64.decode("~~~")])],
	"zero": [x | x := count([x | x := input.number / 0])],
}

result := {
	"strings": strings_of,
	"numbers": numbers_of,
	"encodings": encodings,
	"objects": objects_of,
	"others": others,
}
