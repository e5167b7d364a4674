-- Remembers that somebody needs the ledger to look at an organization. May be lost.
--
-- keys: wanted
-- args: orgId most
-- returns: 1 | 0
if redis.call('SCARD', wanted) >= tonumber(most) then return 0 end
return redis.call('SADD', wanted, orgId)
