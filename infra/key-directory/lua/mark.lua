-- Says under an owner whether every key of the shard is in it: `no` when it begins to be filled, `yes` when that is done.
-- Nothing is done where this owner did not begin on this life of this server: what it put in first may be lost.
--
-- keys: shard
-- args: ownerEpoch isFilled
-- returns: marked | older | lost
local mark = redis.call('HMGET', shard, 'epoch', 'server')
if mark[1] and tonumber(mark[1]) > tonumber(ownerEpoch) then return { 'older' } end
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if isFilled == 'yes' and (mark[1] ~= ownerEpoch or mark[2] ~= server) then return { 'lost' } end
redis.call('HSET', shard, 'epoch', ownerEpoch, 'server', server, 'filled', isFilled)
return { 'marked' }
