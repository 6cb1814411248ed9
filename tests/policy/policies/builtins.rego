# One of each kind of builtin, on values that requests have.
package test

import rego.v1

strings_of := {
	"upper": upper(input.user),
	"concat": concat(",", input.scopes),
	"indexof": indexof(input.path, "/o"),
	"replace": replace(input.path, "/", "::"),
	"substring": substring(input.path, 1, 4),
	"trim": trim(input.path, "/"),
	"trim_prefix": trim_prefix(input.path, "/orders"),
	"reverse": strings.reverse(input.user),
	"count": strings.count(input.path, "/"),
	"contains": contains(input.path, "orders"),
	"endswith": endswith(input.path, "7"),
	"sprintf": sprintf("%s|%d|%v|%5.2f|%x", [input.user, input.number, input.roles, input.ratio, input.number]),
	"format_int": format_int(input.number, 16),
	"any_prefix": strings.any_prefix_match(input.scopes, ["stoa:r", "x"]),
}

numbers_of := {
	"abs": abs(input.number),
	"round": round(input.ratio),
	"ceil": ceil(input.ratio),
	"floor": floor(input.ratio),
	"range": numbers.range(input.number, input.number + 3),
	"step": numbers.range_step(0, 10, 3),
	"sum": sum([input.number, input.ratio, 1]),
	"product": product([input.number, 3]),
	"max": max([input.number, 10]),
	"min": min([input.number, 10]),
	"mod": (input.number + 1000) % 7,
	"div": input.number / 4,
	"and": bits.and(input.number + 1000, 255),
	"lsh": bits.lsh(1, 10),
	"sort": sort([input.number, 3, input.ratio, 1]),
}

encodings := {
	"b64": base64.encode(input.user),
	"b64url": base64url.encode_no_pad(input.user),
	"hex": hex.encode(input.user),
	"back": base64.decode(base64.encode(input.path)),
	"json": json.unmarshal(json.marshal(input)) == input,
	"url": urlquery.encode(input.path),
	"marshal": json.marshal(input.roles),
}

objects_of := {
	"get": object.get(input, ["token", "sub"], "nobody"),
	"keys": object.keys(input),
	"union": object.union(input.token, {"x": 1}),
	"remove": object.remove(input, ["token", "scopes", "roles"]),
	"filter": json.filter(input, ["token/sub"]),
	"subset": object.subset(input, {"user": input.user}),
	"walked": count([p | walk(input, [p, _])]),
	"types": [type_name(v) | some k in sort(object.keys(input)); v := input[k]],
	"patch": json.patch(input.token, [{"op": "add", "path": "/a", "value": 1}]),
}

others := {
	"regex": regex.find_n(`[a-z]+`, input.path, -1),
	"regex_replace": regex.replace(input.path, `\d+`, "{id}"),
	"regex_split": regex.split(`/`, input.path),
	"submatch": regex.find_all_string_submatch_n(`/(\w)(\w*)`, input.path, -1),
	"semver": semver.compare("1.2.3", "1.10.0"),
	"time": time.parse_rfc3339_ns("2026-11-26T20:00:00Z") + input.number,
	"date": time.date(1772236790000000000 + (input.number * 86400000000000)),
	"clock": time.clock(1772236790000000000),
	"duration": time.parse_duration_ns("1h30m"),
	"units": units.parse_bytes("10MiB"),
	"cidr": net.cidr_contains("192.0.2.0/24", input.ip),
	"reachable": graph.reachable({"a": {"b"}, "b": {"c"}, "c": set()}, {"a"}),
	"yaml": yaml.unmarshal("a: [1, two]"),
	"to_number": to_number("12.5"),
	"number_of_user": count([n | n := to_number(input.user)]),
	"bad_base64": count([x | x := base64.decode("~~~")]),
	"zero": count([x | x := input.number / 0]),
}

result := {
	"strings": strings_of, "numbers": numbers_of, "encodings": encodings,
	"objects": objects_of, "others": others,
}
