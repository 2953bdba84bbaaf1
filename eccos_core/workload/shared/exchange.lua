-- One message of one replica: apply what it reports, take a slot for it, and answer with the state of all replicas.
-- KEYS[1]: the key `<prefix>:meta`. ARGV[1]: the message, as JSON. Time is Redis' own, so clocks of replicas may differ.
--
-- A replica reports absolute counts under a growing sequence number, so a message that arrives late, twice or never
-- does no harm. Its events are numbered, and each is applied once.
local message = cjson.decode(ARGV[1])
local prefix = string.sub(KEYS[1], 1, -6)
local META, ALIVE, TOTAL, HEALTH = KEYS[1], prefix .. ':replicas', prefix .. ':in_flight', prefix .. ':health'
local WAITING = prefix .. ':waiting'  -- since when the oldest request of each replica waits
local ME = prefix .. ':replica:' .. message.replica
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local settings = message.settings

local function as_text(number) return string.format('%.0f', number) end

-- the schema, and what Redis itself missed ------------------------------------------------------------------------

local meta = redis.call('HMGET', META, 'schema', 'last', 'ready')
if meta[1] and meta[1] ~= message.schema then
  local others = redis.call('ZCOUNT', ALIVE, as_text(now), '+inf')
  if others > 0 then return cjson.encode({error = 'schema', found = meta[1], replicas = others}) end
  redis.call('DEL', META, TOTAL, HEALTH, ALIVE, WAITING)  -- the replicas of the other version are gone
  meta = {}
elseif not meta[1] and redis.call('EXISTS', META) == 1 then
  return cjson.encode({error = 'foreign'})
end
if not meta[1] then
  -- The state is new, or it was lost. Nobody takes a slot until every replica had the time to say what it holds.
  meta = {message.schema, now, now + settings.grace_ms}
  redis.call('HSET', META, 'schema', meta[1], 'ready', as_text(meta[3]))
end
local ready, gap = tonumber(meta[3]), now - tonumber(meta[2])
if gap > settings.pause_ms or gap < 0 then
  -- Nobody reached Redis for a while, or its clock jumped: that is nobody's fault, so the leases wait as long.
  for _, replica in ipairs(redis.call('ZRANGE', ALIVE, 0, -1)) do redis.call('ZINCRBY', ALIVE, as_text(gap), replica) end
  if gap < 0 then
    ready = math.min(ready, now + settings.grace_ms)
    redis.call('HSET', META, 'ready', as_text(ready))
  end
end
redis.call('HSET', META, 'last', as_text(now))

-- leases that ran out ---------------------------------------------------------------------------------------------

local function forget(replica)
  local key = prefix .. ':replica:' .. replica
  local held = redis.call('HGETALL', key)
  for i = 1, #held, 2 do
    local count = tonumber(held[i + 1])
    if string.sub(held[i], 1, 2) == 'd:' and count > 0 then
      redis.call('HINCRBY', TOTAL, string.sub(held[i], 3), as_text(-count))
    end
  end
  redis.call('DEL', key)
  redis.call('ZREM', ALIVE, replica)
  redis.call('HDEL', WAITING, replica)
end

for _, replica in ipairs(redis.call('ZRANGEBYSCORE', ALIVE, '-inf', as_text(now))) do forget(replica) end
if message.leave then
  forget(message.replica)
  return cjson.encode({left = true})
end

-- what this replica reports ---------------------------------------------------------------------------------------

local mine = {}
local stored = redis.call('HGETALL', ME)
for i = 1, #stored, 2 do mine[stored[i]] = stored[i + 1] end
local applied = tonumber(mine['#event'] or 0)
local is_newest = message.sequence > tonumber(mine['#sequence'] or 0)
redis.call('ZADD', ALIVE, as_text(now + settings.lease_ms), message.replica)

local health = {}
local encoded = redis.call('HMGET', HEALTH, unpack(message.deployments))
for i, name in ipairs(message.deployments) do
  health[name] = encoded[i] and cjson.decode(encoded[i]) or {failures = 0, openings = 0, error_rate = 0}
end

local changed = {}
local function is_open(state) return state.opened_until and now < state.opened_until end

local function open(state, retry_after_ms)
  local wait = math.max(settings.open_ms * 2 ^ math.min(state.openings, 16), retry_after_ms)
  state.opened_until = now + math.min(settings.longest_open_ms, wait)
  state.openings, state.failures, state.probe = state.openings + 1, 0, nil
end

local function succeed(state)
  state.error_rate = state.error_rate * 0.9
  if not state.opened_until then
    state.failures = 0
  elseif not is_open(state) then
    state.opened_until, state.probe, state.closed_at, state.failures, state.openings = nil, nil, now, 0, 0
  end
end

local function fail(state, retry_after_ms)
  state.error_rate = state.error_rate * 0.9 + 0.1
  if state.opened_until then
    if not is_open(state) then open(state, retry_after_ms) end
    return
  end
  state.failures = state.failures + 1
  if state.failures >= settings.failures or state.error_rate > settings.error_rate then open(state, retry_after_ms) end
end

local second = math.floor(now / 1000)
local function count_minute(name)  -- requests and tokens of the last 60 whole seconds and of this one
  local key, requests, tokens = prefix .. ':minute:' .. name, 0, 0
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local kind, at = string.sub(found[i], 1, 1), tonumber(string.sub(found[i], 2))
    if at < second - 60 or at > second + 1 then
      redis.call('HDEL', key, found[i])
    elseif kind == 'r' then
      requests = requests + found[i + 1]
    else
      tokens = tokens + found[i + 1]
    end
  end
  return requests, tokens
end

local function add_minute(name, kind, amount)
  local key = prefix .. ':minute:' .. name
  redis.call('HINCRBY', key, kind .. as_text(second), as_text(amount))
  redis.call('PEXPIRE', key, 120000)
end

local since = now - message.waiting_ms
if is_newest then
  if message.waiting_ms > 0 then redis.call('HSET', WAITING, message.replica, as_text(since))
  else redis.call('HDEL', WAITING, message.replica) end
  redis.call('HSET', ME, '#sequence', as_text(message.sequence))
  for name, count in pairs(message.counts) do
    local before = tonumber(mine['d:' .. name] or 0)
    if count ~= before then
      redis.call('HSET', ME, 'd:' .. name, as_text(count))
      redis.call('HINCRBY', TOTAL, name, as_text(count - before))
    end
  end
end
for _, event in ipairs(message.events) do
  local number, name, is_good, tokens, retry_after_ms = unpack(event)
  local state = health[name]
  if number > applied and state then
    applied = number
    if is_good == 1 then
      succeed(state)
      if tokens > 0 then
        state.tokens_per_call = (state.tokens_per_call or tokens) * 0.9 + tokens * 0.1
        if message.limits[name] and message.limits[name].tpm then add_minute(name, 't', tokens) end
      end
    else
      fail(state, retry_after_ms)
    end
    changed[name] = true
  end
end
redis.call('HSET', ME, '#event', as_text(applied))
for name, state in pairs(health) do
  if state.opened_until and state.opened_until - now > settings.longest_open_ms then
    state.opened_until, changed[name] = now + settings.longest_open_ms, true  -- the clock of Redis went back
  end
  if state.closed_at and (now - state.closed_at >= settings.warm_up_ms or now < state.closed_at) then
    state.closed_at, changed[name] = nil, true
  end
  if state.probe then
    local lost = not redis.call('ZSCORE', ALIVE, state.probe)
    local given_back = state.probe == message.replica and is_newest and not message.probing[name]
    if lost or given_back then state.probe, changed[name] = nil, true end
  end
end

-- Leave a slot to replicas whose oldest request waits longer, if there are as many as free slots. A replica that does
-- not take it soon cannot use it, and it is passed over until its queue has moved on.
local function must_leave(name, free)
  local key, ahead, left = prefix .. ':left:' .. name, 0, {}
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do left[found[i]] = tonumber(found[i + 1]) end
  local waiting = redis.call('HGETALL', WAITING)
  for i = 1, #waiting, 2 do
    local replica, other_since = waiting[i], tonumber(waiting[i + 1])
    if replica ~= message.replica and other_since + settings.patience_ms < since then
      local left_at = left[replica]
      if not left_at or other_since > left_at then
        left_at = now
        redis.call('HSET', key, replica, as_text(now))
        redis.call('PEXPIRE', key, settings.keep_ms)
      end
      if now - left_at <= settings.leave_ms then ahead = ahead + 1 end
    end
  end
  return ahead >= free
end

-- take a slot -----------------------------------------------------------------------------------------------------

local granted, is_probe, is_left = false, false, false
local minutes = {}
if message.take and is_newest then
  local name = message.take
  local limits, state = message.limits[name], health[name]
  local total = tonumber(redis.call('HGET', TOTAL, name) or 0)
  granted = now >= ready and not (limits.cap and total + 1 > limits.cap)
  if state.opened_until then
    is_probe = not is_open(state) and not state.probe
    granted = granted and is_probe
  elseif state.closed_at then
    local slots = limits.cap or settings.warm_up_slots
    local allowed = math.max(1, math.floor(slots * (now - state.closed_at) / settings.warm_up_ms))
    granted = granted and total + 1 <= allowed
  end
  if granted and limits.cap and must_leave(name, limits.cap - total) then granted, is_left = false, true end
  if limits.rpm or limits.tpm then
    local requests, tokens = count_minute(name)
    if limits.rpm and requests + 1 > limits.rpm then granted = false end
    if limits.tpm then
      local each = math.max(1, state.tokens_per_call or 1)
      if tokens + (total + 1) * each > limits.tpm then granted = false end
    end
    if granted then
      requests = requests + 1
      add_minute(name, 'r', 1)
    end
    minutes[name] = {requests, tokens}
  end
  if granted then
    redis.call('HDEL', WAITING, message.replica)  -- its next message says who waits now
    redis.call('HDEL', prefix .. ':left:' .. name, message.replica)
    redis.call('HINCRBY', TOTAL, name, 1)
    redis.call('HSET', ME, 'd:' .. name, as_text((message.counts[name] or 0) + 1))
    if is_probe then state.probe, changed[name] = message.replica, true end
  end
end
for name in pairs(changed) do redis.call('HSET', HEALTH, name, cjson.encode(health[name])) end

-- answer ----------------------------------------------------------------------------------------------------------

local totals = redis.call('HMGET', TOTAL, unpack(message.deployments))
local others = {}
for i, name in ipairs(message.deployments) do
  local own = message.counts[name] or 0
  if granted and name == message.take then own = own + 1 end
  local state = health[name]
  others[i] = {
    in_flight = math.max(0, tonumber(totals[i] or 0) - own),
    open_ms = state.opened_until and state.opened_until - now,
    closed_ms = state.closed_at and now - state.closed_at,
    error_rate = state.error_rate,
    tokens_per_call = state.tokens_per_call,
    is_probing = (state.probe ~= nil and state.probe ~= message.replica),
  }
end
local answer = {
  is_newest = is_newest,
  granted = granted,
  is_probe = granted and is_probe,
  is_left = is_left,
  event = applied,
  ready_ms = math.max(0, ready - now),
  others = others,
}
if message.full then
  local replicas = redis.call('ZRANGE', ALIVE, 0, -1)
  table.sort(replicas)
  for rank, replica in ipairs(replicas) do if replica == message.replica then answer.rank = rank - 1 end end
  answer.replicas = #replicas
  for name, limits in pairs(message.limits) do
    if limits.rpm or limits.tpm then
      local requests, tokens = count_minute(name)
      minutes[name] = {requests, tokens}
    end
  end
  for _, key in ipairs({META, ALIVE, TOTAL, HEALTH, WAITING, ME}) do redis.call('PEXPIRE', key, settings.keep_ms) end
end
answer.minutes = minutes
return cjson.encode(answer)
