-- Holds that are provisional for longer than any append takes.

-- A taking from ahead of this time is old too: the clock went back, and would not come to it for as long.
local function isOld(member, now)
  return math.abs(now - tonumber(string.match(member, '^%d+'))) > OLD_MS
end

-- '1' if the oldest provisional hold is so old that the ledger should look at the organization. Looks at no other.
local function meetsOld(now)
  local oldest = redis.call('ZRANGE', taken, 0, 0)[1]
  return oldest and isOld(oldest, now) and '1' or '0'
end
