-- Finds a key by its token's hash. A shard that was not filled on this life of this server knows nothing of what is
-- missing in it: that key may be one that the server lost.
--
-- keys: shard
-- args: tokenHash
-- returns: known entry | unknown | unfilled
local entry = redis.call('HGET', shard, tokenHash)
if entry then return { 'known', entry } end
local mark = redis.call('HMGET', shard, 'epoch', 'server')
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if mark[1] and mark[2] == server then return { 'unknown' } end
return { 'unfilled' }
