-- Request ids that were dropped, and are refused for TOMBSTONE_MS.

-- Tombstones come in the order of their time, so only the head is looked at. Those that are too many go with the next calls.
local function forgetTombstones(now)
  while org.forget > 0 and org.forget <= now and forgotten < FORGOTTEN_MAX do
    setHold(redis.call('LINDEX', tombstones, forgotten), false)
    forgotten = forgotten + 1
    local head = redis.call('LINDEX', tombstones, forgotten)
    setTotal('forget', head and holdOf(head).forget or 0)
  end
end
