-- Requests per minute: BUCKETS one-second buckets with a running total, as in the reducer.
--
-- Fields of the hash `state`: r:<keyId> = second total latest newest, and b:<keyId> = the buckets, four bytes each.
-- `latest` is the last second that has a request in it (any, where the total is 0), `newest` how many the newest second
-- has; its bucket is written when the next one begins. So of the requests of a second, one touches the buckets.
local function bucketsOf(window)
  if not window.buckets then
    window.buckets = redis.call('HGET', state, 'b:' .. window.keyId) or string.rep('\0', 4 * BUCKETS)
  end
  return window.buckets
end

local function bucketAt(window, second)
  return (struct.unpack('>I4', bucketsOf(window), 4 * (second % BUCKETS) + 1))
end

local function setBucket(window, second, count)
  local from, buckets = 4 * (second % BUCKETS), bucketsOf(window)
  window.buckets = string.sub(buckets, 1, from) .. struct.pack('>I4', count) .. string.sub(buckets, from + 5)
  window.isFilled = true
end

-- Brings the window to a time; one that lies back by up to a window leaves it where it is.
local function advance(window, now)
  local second = math.floor(now / 1000)
  local ahead = second - window.second
  if ahead <= 0 and -ahead <= BUCKETS then return end
  local left = 0
  if ahead > 0 and ahead < BUCKETS and window.total > 0 then
    setBucket(window, window.second, window.newest)
    left = window.total
    -- The seconds that are too old now; their buckets are those of the seconds that begin.
    for old = window.second + 1 - BUCKETS, second - BUCKETS do
      local count = bucketAt(window, old)
      if count > 0 then
        left = left - count
        setBucket(window, old, 0)
      end
    end
  elseif window.total > 0 then
    window.buckets = string.rep('\0', 4 * BUCKETS)
    window.isFilled = true
  end
  window.second, window.total, window.newest = second, left, 0
  window.isChanged = true
end

local function openWindow(keyId, text, now)
  local window = { keyId = keyId, second = 0, total = 0, latest = 0, newest = 0 }
  if text then
    local second, total, latest, newest = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
    window.second, window.total = tonumber(second), tonumber(total)
    window.latest, window.newest = tonumber(latest), tonumber(newest)
  end
  advance(window, now)
  return window
end

-- Counts one request at the window's newest second.
local function count(window)
  window.latest = window.second
  window.newest = window.newest + 1
  window.total = window.total + 1
  window.isChanged = true
end

-- Milliseconds until the total has fallen below `limit`; 0 when it is already.
local function freeInMs(window, limit, now)
  local left, second = window.total, window.latest
  if left < limit then return 0 end
  if limit > 1 then
    second = window.second - BUCKETS
    while left >= limit do
      second = second + 1
      left = left - (second < window.second and bucketAt(window, second) or window.newest)
    end
  end
  return math.max(0, (second + BUCKETS) * 1000 - now)
end

local function saveWindow(window)
  if not window.isChanged then return end
  write(
    'r:' .. window.keyId,
    exact(window.second) .. ' ' .. exact(window.total) .. ' ' .. exact(window.latest) .. ' ' .. exact(window.newest)
  )
  if window.isFilled then write('b:' .. window.keyId, window.buckets) end
end
