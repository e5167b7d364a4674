-- Who may act. Sets `org` to the organization's totals, as numbers.
--
-- Numbers: Lua's are doubles like JavaScript's, so every safe integer is exact and both sides calculate alike. Only their
-- text is not: tostring() and cjson round to 14 digits. Whatever becomes text goes through exact().
local org
-- The names of the totals that save() is to write.
local changedTotals = {}

-- %d is the faster one; beyond what 32 bits hold it may be cut on some machines, and %.0f never is.
local function exact(number)
  return string.format(number < 2147483648 and '%d' or '%.0f', number)
end

-- Which life of which server this is. Read anew each time: a server that was demoted and promoted keeps its connections.
local function server()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

-- Reads the organization, and further fields of its hash in the same call. Answers why the caller may not act (nil when
-- it may), and those fields. `epoch` is nil for who only reads.
local function open(epoch, ...)
  local row = redis.call(
    'HMGET', state,
    'epoch', 'server', 'fault', 'funded', 'spent', 'held', 'lots', 'next', 'forget', ...
  )
  if not row[1] then return { 'fenced', 'absent' } end
  if row[2] ~= server() then return { 'fenced', 'server' } end
  if epoch and row[1] ~= epoch then return { 'fenced', 'older' } end
  if row[3] then return { 'fenced', 'fault' } end
  org = {
    funded = tonumber(row[4]),
    spent = tonumber(row[5]),
    held = tonumber(row[6]),
    -- How many lots have anything left in them.
    lots = tonumber(row[7]),
    -- What comes next in an order: of lots, or of provisional holds.
    next = tonumber(row[8]),
    -- When the oldest tombstone may be forgotten; 0 while there is none.
    forget = tonumber(row[9]),
  }
  return nil, row[10], row[11], row[12]
end

local function available()
  return org.funded - org.spent - org.held
end

local function setTotal(name, value)
  org[name] = value
  changedTotals[name] = true
end
