-- Puts a key in its place. A revocation is kept: nothing that comes later brings the key back.
--
-- keys: shard
-- args: tokenHash entry
-- returns: put | kept
local present = redis.call('HGET', shard, tokenHash)
if present and cjson.decode(present).revoked then return { 'kept' } end
redis.call('HSET', shard, tokenHash, entry)
return { 'put' }
