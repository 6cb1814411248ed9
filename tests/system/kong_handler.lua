-- Runs charts/kong's handler in the place of Kong, once: kong_handler.lua PLUGINS URL AUTHORIZATION
-- USER SCOPE. Kong's interface (its PDK) and lua-resty-http, which need nginx, are played here; the
-- question goes to the agent itself, by curl. Prints what the handler did, as JSON.
local plugins, url, authorization, user, scope = ...
package.path = plugins .. "/?.lua;" .. package.path
local cjson = require "cjson.safe"
package.loaded["cjson.safe"] = cjson

local done = { set = {}, cleared = {}, told = {} }

package.loaded["resty.http"] = {
  new = function()
    return {
      set_timeout = function() end,
      request_uri = function(_, address, request)
        local file = os.tmpname()
        local handle = assert(io.open(file, "w"))
        handle:write(request.body)
        handle:close()
        local curl = io.popen("curl -s -i -X " .. request.method .. " --data-binary @" .. file .. " " .. address)
        local text = curl:read("*a")
        curl:close()
        os.remove(file)
        local status = tonumber(text:match("^HTTP/%S+ (%d+)"))
        if not status then
          return nil, "connection refused"
        end
        local head, body = text:match("^(.-)\r\n\r\n(.*)$")
        local headers = setmetatable({}, { __index = function(t, name) return rawget(t, name:lower()) end })
        for name, value in head:gmatch("\r\n([^:]+): ([^\r]*)") do
          rawset(headers, name:lower(), value)
        end
        return { status = status, headers = headers, body = body }
      end,
    }
  end,
}

kong = {
  log = { err = function(...) io.stderr:write(table.concat({ ... }), "\n") end },
  client = {
    get_consumer = function() return user ~= "" and { username = user } or nil end,
    get_credential = function() return scope ~= "" and { scope = scope } or nil end,
    get_forwarded_ip = function() return "192.0.2.7" end,
  },
  router = { get_route = function() return { name = "orders" } end },
  request = {
    get_method = function() return "GET" end,
    get_raw_path = function() return "/orders" end,
    get_raw_query = function() return "page=2" end,
    get_headers = function()
      return { accept = { "text/html", "text/plain" }, authorization = authorization ~= "" and authorization or nil }
    end,
  },
  service = { request = {
    set_header = function(name, value) done.set[name] = value end,
    clear_header = function(name) done.cleared[#done.cleared + 1] = name end,
  } },
  response = {
    set_header = function(name, value) done.told[name] = value end,
    exit = function(status, body, headers)
      done.exit, done.body, done.told = status, body, headers
    end,
  },
}

local handler = require "kong.plugins.stoa.handler"
handler:access({ url = url, timeout = 2000, tenant = "acme" })
print(cjson.encode(done))
