-- Rate limits by GCRA: KEYS[i] holds the theoretical arrival time, in microseconds of this server's
-- clock. ARGV: three numbers for each key: what one request costs, how far the arrival time may run
-- ahead of the clock, and the window. All keys are taken from, or none.
-- Answers for each key: 1 or 0, and how far the arrival time was ahead of the clock before.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local answer, arrivals, admitted = {}, {}, true
for i, key in ipairs(KEYS) do
  local arrival = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local ahead = arrival - now
  local fits = ahead <= tonumber(ARGV[i * 3 - 1])
  admitted = admitted and fits
  arrivals[i] = arrival
  answer[i * 2 - 1] = fits and 1 or 0
  answer[i * 2] = ahead
end
if admitted then
  for i, key in ipairs(KEYS) do
    local next = arrivals[i] + tonumber(ARGV[i * 3 - 2])
    local left = math.ceil((next - now) / 1000) + 1
    redis.call('SET', key, string.format('%.0f', next), 'PX', string.format('%.0f', left))
  end
end
return answer
