-- Quotas: KEYS[i] counts the requests of one period. ARGV: two numbers for each key: the limit (0:
-- none) and the seconds until the period ends. All keys are counted in, or none.
-- Answers 1 or 0, then what each key holds.
local answer, admitted = {}, 1
for i, key in ipairs(KEYS) do
  local used = tonumber(redis.call('GET', key) or '0')
  local limit = tonumber(ARGV[i * 2 - 1])
  if limit > 0 and used >= limit then admitted = 0 end
  answer[i + 1] = used
end
if admitted == 1 then
  for i, key in ipairs(KEYS) do
    answer[i + 1] = redis.call('INCR', key)
    if answer[i + 1] == 1 then
      -- A day longer than the period, for nodes whose clocks are behind.
      redis.call('EXPIRE', key, tonumber(ARGV[i * 2]) + 86400)
    end
  end
end
answer[1] = admitted
return answer
