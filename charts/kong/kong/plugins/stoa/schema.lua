local typedefs = require "kong.db.schema.typedefs"

return {
  name = "stoa",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
        type = "record",
        fields = {
          -- The agent in the same pod, started with STOA_DECISION_FORMAT=KongPlugin.
          { url = typedefs.url({ default = "http://127.0.0.1:8081/authz" }) },
          { timeout = { type = "integer", default = 2000, between = { 1, 60000 } } },
          -- Where the tenant is not the caller's own.
          { tenant = { type = "string" } },
          { policy_set = { type = "string" } },
        },
    } },
  },
}
