-- Asks the STOA agent beside this Kong whether a request may go on, and tells the service who it is.
-- Without an answer the request is refused.
local cjson = require "cjson.safe"
local http = require "resty.http"

local Stoa = { PRIORITY = 950, VERSION = "1.0.0" } -- after Kong's authentication plugins (1000 and up)

-- Fields of a decision that are for the client.
local FOR_CLIENT = {
  "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate",
  "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
}

local function question(config)
  local consumer = kong.client.get_consumer()
  local credential = kong.client.get_credential()
  local user
  if consumer then
    user = { id = consumer.username or consumer.custom_id or consumer.id }
    if credential and credential.scope then
      user.scopes = {}
      for scope in credential.scope:gmatch("%S+") do
        user.scopes[#user.scopes + 1] = scope
      end
      if #user.scopes == 0 then
        user.scopes = nil -- an empty table would be written as an object
      end
    end
  end
  local route = kong.router.get_route()
  return {
    method = kong.request.get_method(),
    path = kong.request.get_raw_path() .. (kong.request.get_raw_query() ~= ""
      and "?" .. kong.request.get_raw_query() or ""),
    headers = kong.request.get_headers(200),
    source_ip = kong.client.get_forwarded_ip(),
    user = user,
    tenant_id = config.tenant,
    context = { policy_set = config.policy_set, route = route and route.name },
  }
end

function Stoa:access(config)
  local client = http.new()
  client:set_timeout(config.timeout)
  local body = cjson.encode(question(config))
  local answer, failure
  if body then
    answer, failure = client:request_uri(config.url, {
      method = "POST",
      body = body,
      headers = { ["Content-Type"] = "application/json" },
      keepalive_timeout = 60000,
      keepalive_pool = 64,
    })
  end
  if not answer then
    kong.log.err("no decision from ", config.url, ": ", failure or "the request is no JSON")
    return kong.response.exit(503, { message = "No decision could be had" })
  end
  local told = {}
  for _, name in ipairs(FOR_CLIENT) do
    told[name] = answer.headers[name]
  end
  local decision = cjson.decode(answer.body or "") or {}
  if answer.status ~= 200 or decision.status ~= "ok" then
    local status = answer.status >= 400 and answer.status or 503
    -- A question that the agent refuses is a fault of this configuration, not the client's.
    if decision.status ~= "denied" then
      kong.log.err(config.url, " answered ", answer.status, ": ", answer.body)
      status = 503
    end
    return kong.response.exit(status, { message = decision.message or "No decision" }, told)
  end
  for _, name in ipairs(decision.remove_headers or {}) do
    kong.service.request.clear_header(name)
  end
  for name, value in pairs(decision.headers or {}) do
    kong.service.request.set_header(name, value)
  end
  for name, value in pairs(told) do
    kong.response.set_header(name, value)
  end
end

return Stoa
