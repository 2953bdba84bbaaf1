-- What replicas used of their streams: add up what one of them reports, and hand out room to it.
-- KEYS[1]: the key `<prefix>:meta`. ARGV[1]: the message, as JSON. `exchange.lua` keeps the replicas that are alive.
--
-- A report has absolute sums under a growing number. `used` is what this replica spent (USD), or how far its answers
-- fell below the floor in sum (units of quality). `held` is the most that `used` may reach before the next answer.
-- The sum of all `held` never passes what the stream allows, so it holds whatever is lost, late or killed.
local message = cjson.decode(ARGV[1])
local prefix = string.sub(KEYS[1], 1, -6)
local ALIVE = prefix .. ':replicas'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'schema', 'ready')
if meta[1] ~= message.schema then return cjson.encode({streams = {}}) end  -- the state was lost: `exchange.lua` is next
local is_ready = now >= tonumber(meta[2])

local function clamp(value, low, high) return math.min(math.max(value, low), high) end

-- what a stream starts with, or goes on with after Redis lost it ------------------------------------------------------

local function begin(report)
  local fleet = {born = now, made = now, at = now, version = 0, copied = 0, price = report.price}
  fleet.count, fleet.used, fleet.lost = 0, 0, 0
  if report.kind == 'money' then fleet.free, fleet.earned = report.initial, report.initial end
  if report.kind == 'mean' then fleet.horizon, fleet.began = 0, now end
  fleet.ticks, fleet.first = {{0, 0, 0, 0}}, 1  -- count, used, the least `used` until the next tick, lost
  fleet.changed = {used = 0, count = 0, lost = 0, free = 0}  -- since it began here
  return fleet
end

-- Go on with the newest that a replica remembers, and with what others said since.
local function restore(fleet, report)
  local copy, changed = report.copy, fleet.changed
  fleet.born, fleet.at, fleet.price = copy.born, now - report.age_ms, copy.price
  fleet.copied, fleet.version = copy.version, math.max(copy.version, fleet.version)
  fleet.count, fleet.used = copy.count + changed.count, copy.used + changed.used
  fleet.lost = copy.lost + changed.lost
  if copy.free then fleet.free, fleet.earned = copy.free + changed.free, copy.earned end
  if copy.horizon then fleet.horizon, fleet.began = copy.horizon, now - report.age_ms - copy.horizon_age_ms end
  if copy.low then
    fleet.first = fleet.first + #fleet.ticks  -- so that no member's last tick is kept
    fleet.ticks = {{copy.count, copy.used, copy.low, copy.lost}}
  end
end

-- the account of money ------------------------------------------------------------------------------------------------

local function settle_money(fleet, me, others, report, answer)
  local earned = report.usd * math.max(0, now - fleet.at) / report.period_ms
  fleet.earned = math.min(fleet.earned + earned, report.usd)
  local charged = report.held - me.held
  local outstanding, wants = report.held - report.used, report.want
  for _, other in pairs(others) do
    outstanding, wants = outstanding + other.held - other.used, wants + other.want
  end
  local free = math.min(fleet.free + earned - charged, report.usd - outstanding)
  fleet.changed.free = fleet.changed.free - charged
  local room, pool = report.held - report.used, free + outstanding
  local scale = wants > 0 and clamp(pool / wants, 0, 1) or 1
  local target = report.want * scale
  if report.need > target and free >= report.need - room then target = report.need end
  local grant = is_ready and clamp(target - room, 0, math.max(0, free)) or 0
  me.held, fleet.free = report.held + grant, free - grant
  fleet.changed.free = fleet.changed.free - grant
  answer.held, answer.pool, answer.free, answer.earned, answer.scale = me.held, pool, fleet.free, fleet.earned, scale
end

-- the account of a floor ----------------------------------------------------------------------------------------------

-- Remember where the sum stood, so that a window can start there. Replicas report at different times: between a tick
-- and the next one the true sum was at least `low`.
local function add_tick(fleet, me, report, before)
  local dip, change = math.min(0, report.low - before), report.used - before
  local last = fleet.first + #fleet.ticks - 1
  for number = math.max(me.tick or fleet.first, fleet.first), last do
    local tick = fleet.ticks[number - fleet.first + 1]
    tick[3] = tick[3] + dip
  end
  local newest = fleet.ticks[#fleet.ticks]
  if fleet.count - newest[1] >= report.window / 128 then
    table.insert(fleet.ticks, {fleet.count, fleet.used, fleet.used, fleet.lost})
    last = last + 1
  else
    newest[3] = newest[3] + math.min(0, change)
  end
  me.tick = last
  local oldest = fleet.count - report.window * 9 / 8
  while #fleet.ticks > 1 and fleet.ticks[2][1] <= oldest do
    table.remove(fleet.ticks, 1)
    fleet.first = fleet.first + 1
  end
end

-- Return the least sum at the start of any window that ends within the next eighth of a window, and of any at all.
local function find_lows(fleet, window)
  local newest_start = math.max(fleet.count - window * 7 / 8, fleet.ticks[1][1])
  local low, least = fleet.ticks[1][3], fleet.ticks[1][3]
  for _, tick in ipairs(fleet.ticks) do
    if tick[1] <= newest_start then low = math.min(low, tick[3]) end
    least = math.min(least, tick[3])
  end
  return low, least
end

local function settle_floor(fleet, me, others, report, before, answer)
  if report.kind == 'window' then add_tick(fleet, me, report, before) end
  local is_over = report.kind == 'mean'
    and (report.horizon ~= fleet.horizon or fleet.count >= report.horizon_requests
      or now - fleet.began >= report.horizon_ms)
  if is_over and report.horizon == fleet.horizon then  -- everybody starts afresh
    fleet.horizon, fleet.began, fleet.count, fleet.used, fleet.lost = fleet.horizon + 1, now, 0, 0, 0
    for _, other in pairs(others) do other.used, other.held, other.count, other.lost = 0, 0, 0, 0 end
  end
  if is_over then me.used, me.held, me.count, me.lost = 0, 0, 0, 0 end
  me.horizon = fleet.horizon

  local outstanding, wants = 0, report.want
  for _, other in pairs(others) do
    outstanding, wants = outstanding + math.max(0, other.held - other.used), wants + other.want
  end
  local allowed, low, least = report.allowed, 0, 0
  if report.kind == 'mean' then
    allowed = allowed * math.max(fleet.count + 1, report.start_requests)
  else
    low, least = find_lows(fleet, report.window)
    answer.low = low
  end
  local share = report.want / wants
  local function hand_out(pool)
    if pool < 0 then return share * pool end  -- this replica's part of what has to be made good
    return is_ready and clamp(pool - outstanding, 0, share * pool) or 0
  end
  local pool = allowed + low - fleet.used
  local room = hand_out(pool)
  answer.pool, answer.allowed, answer.horizon = pool, allowed, fleet.horizon
  answer.horizon_age_ms = fleet.began and now - fleet.began
  answer.held = me.used + room
  answer.held_alone = me.used + math.min(room, hand_out(allowed + least - fleet.used))
  me.held = math.max(is_over and 0 or report.held, answer.held)
  local window = fleet.ticks[1]
  answer.recent = {fleet.count - window[1], fleet.used - window[2], fleet.lost - window[4]}
end

-- one report ----------------------------------------------------------------------------------------------------------

local function exchange(report)
  local key = prefix .. ':stream:' .. report.key
  local found = redis.call('HGETALL', key)
  local fleet, others, me, my_name = nil, {}, nil, message.replica .. '/' .. report.member
  for i = 1, #found, 2 do
    local name, value = found[i], cjson.decode(found[i + 1])
    if name == '#fleet' then fleet = value
    elseif name == my_name then me = value
    else others[name] = value end
  end
  if me and report.sequence <= me.sequence then return {key = report.key, is_old = true} end
  local is_new = not fleet
  fleet = fleet or begin(report)
  local copy = report.copy
  if copy and copy.made ~= fleet.made and copy.version > fleet.copied and (is_new or not is_ready) then
    restore(fleet, report)
  end
  for name, other in pairs(others) do
    local replica = string.match(name, '^[^/]+')
    if replica == message.replica or not redis.call('ZSCORE', ALIVE, replica) then
      -- it is gone, and what it may have used without saying so counts as used
      if report.kind ~= 'money' then fleet.used = fleet.used + math.max(0, other.held - other.used) end
      redis.call('HDEL', key, name)
      others[name] = nil
    end
  end
  if not me then
    local agreed = report.agreed or {born = fleet.born, used = 0, held = 0, count = 0, lost = 0, moved = report.moved}
    me = {used = agreed.used, held = agreed.held, count = agreed.count, lost = agreed.lost, moved = agreed.moved}
    if agreed.born ~= fleet.born then me.held = agreed.used end  -- its room came from an account that is gone
  end
  fleet.price = fleet.price + report.moved - me.moved
  if report.price_low < report.price_high then  -- else it has no range yet
    fleet.price = clamp(fleet.price, report.price_low, report.price_high)
  end
  fleet.version = fleet.version + 1
  if report.horizon == fleet.horizon then
    for _, name in ipairs({'used', 'count', 'lost'}) do
      fleet[name] = fleet[name] + report[name] - me[name]
      fleet.changed[name] = fleet.changed[name] + report[name] - me[name]
    end
  end
  local answer, before = {key = report.key, replicas = 1}, me.used
  for _ in pairs(others) do answer.replicas = answer.replicas + 1 end
  me.sequence, me.moved, me.want = report.sequence, report.moved, report.want
  me.used, me.count, me.lost = report.used, report.count, report.lost
  if report.kind == 'money' then settle_money(fleet, me, others, report, answer) end
  if report.kind == 'mean' or report.kind == 'window' then
    settle_floor(fleet, me, others, report, before, answer)
  end
  fleet.at = now
  for name, other in pairs(others) do redis.call('HSET', key, name, cjson.encode(other)) end
  redis.call('HSET', key, '#fleet', cjson.encode(fleet), my_name, cjson.encode(me))
  redis.call('PEXPIRE', key, message.keep_ms)
  answer.born, answer.made, answer.version, answer.price = fleet.born, fleet.made, fleet.version, fleet.price
  answer.count, answer.used, answer.lost = fleet.count, fleet.used, fleet.lost
  return answer
end

local answers = {}
for i, report in ipairs(message.streams) do answers[i] = exchange(report) end
return cjson.encode({streams = answers, is_ready = is_ready})
