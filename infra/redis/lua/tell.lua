-- Keeps how far an owner has carried recorded events in, unless a newer owner, or this one further on, was here before: a
-- ledger that was stopped may say long afterwards where it stood. Positions have more digits than a number of Lua's is exact
-- with: without zeros in front, the longer one is further on, and of two equally long ones their text says it.
--
-- keys: applied
-- args: ownerEpoch position
-- returns: told | older
local epoch, reached = string.match(redis.call('GET', applied) or '', '^(%d+) (%d+)$')
if epoch then
  if tonumber(epoch) > tonumber(ownerEpoch) then return { 'older' } end
  local isFurther = #reached > #position or (#reached == #position and reached > position)
  if epoch == ownerEpoch and isFurther then return { 'older' } end
end
redis.call('SET', applied, ownerEpoch .. ' ' .. position)
return { 'told' }
