-- For wrk: sends the files named after `--`, in turn, as a browser's form would; at the end one line of figures:
-- requests, duration and the 50th and 99th percentile of latency in microseconds, answers that were refused, failures.
local bodies, turn = {}, 0
-- As long as those of browsers: a short one takes longer to look for.
local boundary = "----WebKitFormBoundaryq3TzVd8HkLw1XyUe"
function init(args)
  for i, path in ipairs(args) do
    local file = assert(io.open(path, "rb"))
    local head = 'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    bodies[i] = "--" .. boundary .. "\r\n" .. head .. file:read("*a") .. "\r\n--" .. boundary .. "--\r\n"
    file:close()
  end
end
local headers = { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary }
function request()
  turn = turn % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[turn])
end
function done(s, latency)
  local failed = s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout
  local figures = { s.requests, s.duration, latency:percentile(50), latency:percentile(99), s.errors.status, failed }
  for i, figure in ipairs(figures) do figures[i] = string.format("%d", figure) end
  print("RESULT " .. table.concat(figures, " "))
end
