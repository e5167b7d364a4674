-- The store's own time in milliseconds since 1970. Gateways' clocks do not matter.
local function nowMs()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
