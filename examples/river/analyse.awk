# Reads a year of hourly river readings, throws out what the instruments got wrong, and writes a
# picture (SVG) and a summary (text).
#
#   awk -v svg=river.svg -v summary=summary.txt -f analyse.awk readings.csv
#
# Plain awk without its mathematical functions, so that mawk, gawk and busybox all do it.

BEGIN {
    FS = ","
    FLOOD_M = 2.0            # the river leaves its banks
    FLOOD_OVER_M = 1.8       # and is back in them; lower, so that ripples do not make two floods of one
    HIGHEST_M = 12           # above the bridge: no reading can be true
    SPIKE_M = 0.8            # further than this from both neighbours: no river does that in an hour
    STUCK_HOURS = 12         # to the millimetre the same for so long: the float hangs
    LONGEST_HOURS = 20000    # a row with a mad year must not make a picture of a thousand years
    if (svg == "") svg = "river.svg"
    if (summary == "") summary = "summary.txt"
    split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", MONTH, " ")
    split("31 28 31 30 31 30 31 31 30 31 30 31", MONTH_DAYS, " ")
    split("missing no_answer spike stuck", KINDS, " ")
    NAME["missing"] = "no reading"; NAME["no_answer"] = "logger had no answer"
    NAME["spike"] = "spike";        NAME["stuck"] = "float stuck"
    INK["missing"] = "#9aa5b1"; INK["no_answer"] = "#e08e0b"; INK["spike"] = "#c0392b"; INK["stuck"] = "#7b4fa3"
}

/^#/ { about = substr($0, 3); sub(/^gauge: /, "", about); next }
$1 == "time" { next }
NF != 5 { malformed++; next }
{
    t = hour_of($1)
    if (rows == 0) first = t
    t -= first
    if (t < 0 || t > LONGEST_HOURS) { malformed++; next }
    rows++; hours = t + 1; label[t] = $1
    if ($2 != "") { raw[t] = $2 + 0; raw_text[t] = $2 }
    if ($3 != "") flow[t] = $3 + 0
    if ($4 != "") rain[t] = $4 + 0
    if ($5 != "") water[t] = $5 + 0
}

END {
    if (rows < 48) { print "analyse: fewer than two days of readings" > "/dev/stderr"; exit 1 }
    clean()
    by_day()
    by_month()
    find_floods()
    find_lag()
    write_summary()
    draw()
}

function leap(y) { return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0 }

# Hours since the start of 2000 of a text like 2025-01-16T07:00Z.
function hour_of(text,    y, m, d, days, i) {
    y = substr(text, 1, 4) + 0; m = substr(text, 6, 2) + 0; d = substr(text, 9, 2) + 0
    days = d - 1
    for (i = 2000; i < y; i++) days += 365 + leap(i)
    for (i = 1; i < m; i++) days += MONTH_DAYS[i] + (i == 2 && leap(y))
    return days * 24 + substr(text, 12, 2)
}

# The way back, for hours that have no row: "16 Jan 07:00".
function when(t,    days, y, m) {
    days = int((t + first) / 24)
    for (y = 2000; days >= 365 + leap(y); y++) days -= 365 + leap(y)
    for (m = 1; days >= MONTH_DAYS[m] + (m == 2 && leap(y)); m++) days -= MONTH_DAYS[m] + (m == 2 && leap(y))
    YEAR_OF = y; MONTH_OF = m; DAY_OF = days + 1
    return sprintf("%d %s %02d:00", DAY_OF, MONTH[m], (t + first) % 24)
}

function clean(    t, i, run, near) {
    for (t = 0; t < hours; t++) {
        if (!(t in raw)) why[t] = "missing"
        else if (raw[t] <= -999) why[t] = "no_answer"
        else if (raw[t] < 0 || raw[t] > HIGHEST_M) why[t] = "spike"
    }
    for (t = 0; t < hours; t++) {
        if (t in why) continue
        near = neighbour(t, -1)
        if (near != "" && abs(raw[t] - near) > SPIKE_M) {
            near = neighbour(t, 1)
            if (near != "" && abs(raw[t] - near) > SPIKE_M) why[t] = "spike"
        }
    }
    run = 0
    for (t = 1; t <= hours; t++) {
        if (t < hours && (t in raw_text) && ((t - 1) in raw_text) && raw_text[t] == raw_text[t - 1] && raw[t] > 0) { run++; continue }
        if (run >= STUCK_HOURS) for (i = t - run; i < t; i++) why[i] = "stuck"
        run = 0
    }
    for (t = 0; t < hours; t++) {
        if (t in why) { rejected[why[t]]++; continue }
        level[t] = raw[t]; good++
    }
}

# The nearest reading within six hours that is not known to be wrong.
function neighbour(t, step,    i) {
    for (i = 1; i <= 6; i++) if (((t + i * step) in raw) && !((t + i * step) in why)) return raw[t + i * step]
    return ""
}

function abs(x) { return x < 0 ? -x : x }

function by_day(    t, d) {
    days = int((hours + 23) / 24)
    for (t = 0; t < hours; t++) {
        d = int(t / 24)
        if (t in rain) { day_rain[d] += rain[t]; if (day_rain[d] > wettest) { wettest = day_rain[d]; wettest_day = d } }
        if (t in level) spread(d, level[t], level_n, level_sum, level_low, level_high)
        if (t in water) spread(d, water[t], water_n, water_sum, water_low, water_high)
    }
}

function spread(key, x, n, sum, low, high) {
    if (!(key in n) || x < low[key]) low[key] = x
    if (!(key in n) || x > high[key]) high[key] = x
    n[key]++; sum[key] += x
}

function by_month(    t, m) {
    months = 0
    for (t = 0; t < hours; t++) {
        if (t == 0 || (t % 24 == 0)) {
            when(t)
            if (t == 0 || DAY_OF == 1) { months++; month_start[months] = t; month_name[months] = MONTH[MONTH_OF] " " YEAR_OF; month_short[months] = MONTH[MONTH_OF] }
        }
        m = months; m_hours[m]++
        if (t in level) spread(m, level[t], m_n, m_sum, m_low, m_high)
        if (t in rain) { m_rain[m] += rain[t]; rain_total += rain[t] }
        if (t in water) { m_water[m] += water[t]; m_water_n[m]++ }
        if (t in flow) { m_flow[m] += flow[t]; m_flow_n[m]++ }
    }
    month_start[months + 1] = hours
}

function find_floods(    t, high, i, r) {
    floods = 0; high = 0
    for (t = 0; t < hours; t++) {
        if (!(t in level)) continue
        if (level[t] > top) { top = level[t]; top_at = t }
        if (!high && level[t] >= FLOOD_M) { high = 1; floods++; flood_from[floods] = t; flood_peak[floods] = 0 }
        if (high && level[t] > flood_peak[floods]) { flood_peak[floods] = level[t]; flood_at[floods] = t }
        if (high && level[t] < FLOOD_OVER_M) { high = 0; flood_to[floods] = t }
        if (((t - 3) in level) && level[t] - level[t - 3] > rise) { rise = level[t] - level[t - 3]; rise_at = t }
    }
    if (high) flood_to[floods] = hours
    for (i = 1; i <= floods; i++) {
        for (t = flood_at[i] - 72; t <= flood_at[i]; t++) if (t in rain) flood_rain[i] += rain[t]
        for (t = flood_from[i]; t < flood_to[i]; t++) if ((t in flow) && flow[t] > flood_flow[i]) flood_flow[i] = flow[t]
    }
}

# How long the river takes to answer rain: the delay after which the water stands highest above
# where it was when the rain fell, weighted by how much fell.
function find_lag(    lag, t, sum, best) {
    for (lag = 1; lag <= 48; lag++) {
        sum = 0
        for (t = 0; t + lag < hours; t++)
            if ((t in rain) && (t in level) && ((t + lag) in level)) sum += rain[t] * (level[t + lag] - level[t])
        if (sum > best) { best = sum; answer_hours = lag }
    }
}

function say(text) { print text; print text > summary }

function write_summary(    i, t, k, bad, line) {
    say("River level, " month_name[1] " to " month_name[months])
    if (about != "") say(about)
    say("")
    bad = hours - good
    say(sprintf("Readings   %d hours, %d rows; %d usable (%.1f %%), %d not:", hours, rows, good, 100 * good / hours, bad))
    for (i = 1; i <= 4; i++) { k = KINDS[i]; if (rejected[k]) say(sprintf("           %5d  %s", rejected[k], NAME[k])) }
    if (malformed) say(sprintf("           %5d  rows that could not be read", malformed))
    say(sprintf("Rain       %.0f mm in all, most on one day %.1f mm (%s)", rain_total, wettest, substr(when(wettest_day * 24), 1, length(when(wettest_day * 24)) - 6)))
    say(sprintf("Answer     the water stands highest about %d hours after the rain", answer_hours))
    say(sprintf("Fastest    %.2f m in three hours, until %s", rise, when(rise_at)))
    say(sprintf("Floods     %d above %.1f m", floods, FLOOD_M))
    for (i = 1; i <= floods; i++)
        say(sprintf("           %d. from %s, %d hours; peak %.2f m and %.0f m3/s on %s, after %.0f mm in 72 hours", \
            i, when(flood_from[i]), flood_to[i] - flood_from[i], flood_peak[i], flood_flow[i], when(flood_at[i]), flood_rain[i]))
    say("")
    say("Month       level m: mean   low  high   flow m3/s   rain mm   water C   usable")
    for (i = 1; i <= months; i++) {
        if (!m_n[i]) { say(sprintf("%-16s no usable reading", month_name[i])); continue }
        say(sprintf("%-16s   %6.2f %5.2f %5.2f   %9.1f   %7.0f   %7.1f   %4.0f %%", month_name[i], m_sum[i] / m_n[i], m_low[i], m_high[i], \
            m_flow_n[i] ? m_flow[i] / m_flow_n[i] : 0, m_rain[i], m_water_n[i] ? m_water[i] / m_water_n[i] : 0, 100 * m_n[i] / m_hours[i]))
    }
    close(summary)
}

function put(text) { print text > svg }

function px(v) { return sprintf("%.1f", v) }

function text_at(x, y, size, anchor, colour, weight, words) {
    gsub(/&/, "\\&amp;", words); gsub(/</, "\\&lt;", words)
    put("<text x=\"" px(x) "\" y=\"" px(y) "\" font-size=\"" size "\" text-anchor=\"" anchor "\" fill=\"" colour "\"" \
        (weight == "" ? "" : " font-weight=\"" weight "\"") ">" words "</text>")
}

function stroke(x1, y1, x2, y2, colour, width, dash) {
    put("<line x1=\"" px(x1) "\" y1=\"" px(y1) "\" x2=\"" px(x2) "\" y2=\"" px(y2) "\" stroke=\"" colour "\" stroke-width=\"" width "\"" \
        (dash == "" ? "" : " stroke-dasharray=\"" dash "\"") "/>")
}

function box(x, y, w, h, colour, opacity) {
    put("<rect x=\"" px(x) "\" y=\"" px(y) "\" width=\"" px(w) "\" height=\"" px(h) "\" fill=\"" colour "\"" (opacity == "" ? "" : " fill-opacity=\"" opacity "\"") "/>")
}

# A step that gives about `wanted` ticks: 1, 2 or 5 times a power of ten.
function tick_step(range, wanted,    step) {
    step = 0.01
    while (range / step > wanted * 10) step *= 10
    if (range / (step * 2) <= wanted && range / step > wanted) return step * 2
    if (range / step <= wanted) return step
    if (range / (step * 5) <= wanted) return step * 5
    return step * 10
}

function tick_text(v, step) { return step >= 1 ? sprintf("%d", v) : sprintf("%.1f", v) }

# Horizontal grid and numbers at the left of a panel for values 0..high.
function left_axis(high, wanted, colour, title,    v, step, y) {
    step = tick_step(high, wanted)
    for (v = 0; v <= high + step / 1000; v += step) {
        y = P_BOTTOM - v / high * (P_BOTTOM - P_TOP)
        stroke(LEFT, y, RIGHT, y, v == 0 ? "#7b8794" : "#e4e7eb", 1, "")
        text_at(LEFT - 10, y + 4, 12, "end", colour, "", tick_text(v, step))
    }
    put("<text transform=\"translate(" px(LEFT - 46) "," px((P_TOP + P_BOTTOM) / 2) ") rotate(-90)\" font-size=\"12.5\" text-anchor=\"middle\" fill=\"" colour "\" font-weight=\"600\">" title "</text>")
}

# Numbers at the right; `share` of the panel's height is used, hanging from the top or standing.
function right_axis(high, wanted, share, hanging, colour, title,    v, step, y) {
    step = tick_step(high, wanted)
    for (v = 0; v <= high + step / 1000; v += step) {
        y = hanging ? P_TOP + v / high * share * (P_BOTTOM - P_TOP) : P_BOTTOM - v / high * share * (P_BOTTOM - P_TOP)
        stroke(RIGHT, y, RIGHT + 5, y, colour, 1, "")
        text_at(RIGHT + 10, y + 4, 12, "start", colour, "", tick_text(v, step))
    }
    y = hanging ? P_TOP + share * (P_BOTTOM - P_TOP) / 2 : (P_TOP + P_BOTTOM) / 2
    put("<text transform=\"translate(" px(RIGHT + 48) "," px(y) ") rotate(90)\" font-size=\"12.5\" text-anchor=\"middle\" fill=\"" colour "\" font-weight=\"600\">" title "</text>")
}

function x_of(t) { return LEFT + (t - X_FROM) / (X_TO - X_FROM) * (RIGHT - LEFT) }
function y_of(v, high) { return P_BOTTOM - v / high * (P_BOTTOM - P_TOP) }

# The range between the lowest and the highest of each day as an area, broken where days are missing.
function day_band(n, low, high, scale, colour,    d, from) {
    from = -1
    for (d = 0; d <= days; d++) {
        if (d < days && (d in n)) { if (from < 0) from = d; continue }
        if (from >= 0 && d - from > 1) band_piece(from, d - 1, low, high, scale, colour)
        from = -1
    }
}

function band_piece(a, b, low, high, scale, colour,    d, path) {
    path = "M"
    for (d = a; d <= b; d++) path = path px(x_of(d * 24 + 12)) "," px(y_of(high[d], scale)) " "
    for (d = b; d >= a; d--) path = path px(x_of(d * 24 + 12)) "," px(y_of(low[d], scale)) " "
    put("<path d=\"" path "Z\" fill=\"" colour "\" fill-opacity=\"0.22\"/>")
}

function day_line(n, sum, scale, colour,    d, path, pen) {
    for (d = 0; d < days; d++) {
        if (!(d in n)) { pen = 0; continue }
        path = path (pen ? "L" : "M") px(x_of(d * 24 + 12)) "," px(y_of(sum[d] / n[d], scale)) " "
        pen = 1
    }
    put("<path d=\"" path "\" fill=\"none\" stroke=\"" colour "\" stroke-width=\"1.7\" stroke-linejoin=\"round\"/>")
}

# An hourly line; gaps of up to six hours are bridged, longer ones are left open.
function hour_line(series, a, b, scale, colour, width,    t, path, last) {
    last = -100
    for (t = a; t <= b; t++) {
        if (!(t in series)) continue
        path = path (t - last <= 6 ? "L" : "M") px(x_of(t)) "," px(y_of(series[t], scale)) " "
        last = t
    }
    put("<path d=\"" path "\" fill=\"none\" stroke=\"" colour "\" stroke-width=\"" width "\" stroke-linejoin=\"round\"/>")
}

function month_axis(with_names,    i, x) {
    for (i = 1; i <= months; i++) {
        x = x_of(month_start[i])
        if (i > 1) stroke(x, P_TOP, x, P_BOTTOM, "#eef1f4", 1, "")
        stroke(x, P_BOTTOM, x, P_BOTTOM + 5, "#7b8794", 1, "")
        if (with_names) {
            text_at((x + x_of(month_start[i + 1])) / 2, P_BOTTOM + 19, 12.5, "middle", "#52606d", "", month_short[i])
            if (i == 1 || month_short[i] == "Jan") text_at((x + x_of(month_start[i + 1])) / 2, P_BOTTOM + 35, 11.5, "middle", "#9aa5b1", "", substr(month_name[i], length(month_name[i]) - 3))
        }
    }
}

function rain_bars(amount, a, b, width, high, share,    i, h) {
    for (i = a; i <= b; i++) {
        if (!(i in amount) || amount[i] <= 0) continue
        h = amount[i] / high * share * (P_BOTTOM - P_TOP)
        box(x_of(i * width) + 0.2, P_TOP, (RIGHT - LEFT) * width / (X_TO - X_FROM) - 0.4, h, RAIN, "")
    }
}

function threshold(scale, words,    y) {
    y = y_of(FLOOD_M, scale)
    stroke(LEFT, y, RIGHT, y, ALARM, 1.3, "7 4")
    if (words != "") text_at(LEFT + 8, y - 6, 12, "start", ALARM, "600", words)
}

function key_line(x, y, colour, words) {
    stroke(x, y - 4, x + 22, y - 4, colour, 3, "")
    text_at(x + 29, y, 12.5, "start", "#3e4c59", "", words)
}

function key_box(x, y, colour, opacity, words) {
    box(x, y - 11, 22, 13, colour, opacity)
    text_at(x + 29, y, 12.5, "start", "#3e4c59", "", words)
}

function panel(from, to, title) {
    P_TOP = from; P_BOTTOM = to
    text_at(LEFT, from - 14, 15, "start", "#1f2933", "700", title)
    box(LEFT, from, RIGHT - LEFT, to - from, "#fbfcfd", "")
}

function draw() {
    LEFT = 84; RIGHT = 1116; WIDTH = 1200; HEIGHT = 1196
    BLUE = "#1f5f99"; RAIN = "#74b3d8"; WARM = "#d2691e"; ALARM = "#c0392b"; GREEN = "#2e8b6f"
    put("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" WIDTH "\" height=\"" HEIGHT "\" viewBox=\"0 0 " WIDTH " " HEIGHT "\" font-family=\"'Source Sans 3', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">")
    put("<title>River level, rain and water temperature</title>")
    box(0, 0, WIDTH, HEIGHT, "#ffffff", "")
    text_at(LEFT - 50, 44, 25, "start", "#102a43", "700", "A year at the river gauge")
    gsub(/km2/, "km²", about)
    text_at(LEFT - 50, 68, 14, "start", "#627d98", "", about)
    draw_year()
    draw_water()
    draw_quality()
    draw_flood()
    text_at(LEFT - 50, HEIGHT - 18, 12, "start", "#829ab1", "", sprintf("%d hourly readings, %.1f %% usable. Bands: lowest to highest of each day; lines: mean of each day.", rows, 100 * good / hours))
    put("</svg>")
    close(svg)
}

function draw_year(    scale, wet, i, x, y, right) {
    X_FROM = 0; X_TO = hours
    scale = int(top * 1.55 / 0.5 + 1) * 0.5
    wet = int(wettest / 20 + 1) * 20
    panel(136, 430, "Level and rain")
    key_line(470, 122, BLUE, "level, daily mean"); key_box(640, 122, BLUE, 0.22, "daily range")
    key_box(765, 122, RAIN, "", "rain per day");   key_box(895, 122, ALARM, 0.14, "flood (above " sprintf("%.1f", FLOOD_M) " m)")
    month_axis(1)
    left_axis(scale, 6, BLUE, "level (m)")
    right_axis(wet, 4, 0.34, 1, "#3b8dbd", "rain (mm/day)")
    for (i = 1; i <= floods; i++) box(x_of(flood_from[i]), P_TOP, x_of(flood_to[i]) - x_of(flood_from[i]) + 1, P_BOTTOM - P_TOP, ALARM, 0.14)
    rain_bars(day_rain, 0, days - 1, 24, wet, 0.34)
    threshold(scale, "")
    day_band(level_n, level_low, level_high, scale, BLUE)
    day_line(level_n, level_sum, scale, BLUE)
    for (i = 1; i <= floods; i++) {
        x = x_of(flood_at[i]); y = y_of(flood_peak[i], scale); right = x < RIGHT - 190
        put("<circle cx=\"" px(x) "\" cy=\"" px(y) "\" r=\"4\" fill=\"#ffffff\" stroke=\"" ALARM "\" stroke-width=\"2\"/>")
        # Only the highest has its date written out: floods come in rows and their words would collide.
        if (flood_at[i] == top_at) text_at(x + (right ? 12 : -12), y + 4, 13, right ? "start" : "end", "#1f2933", "700", sprintf("%.2f m, %s", top, when(top_at)))
        else text_at(x, y - 11, 12, "middle", "#1f2933", "600", sprintf("%.2f m", flood_peak[i]))
    }
}

function draw_water(    scale, d, high) {
    for (d = 0; d < days; d++) if ((d in water_high) && water_high[d] > high) high = water_high[d]
    scale = int(high / 5 + 1) * 5
    panel(520, 664, "Water temperature")
    key_line(470, 506, WARM, "daily mean"); key_box(640, 506, WARM, 0.22, "daily range")
    month_axis(0)
    left_axis(scale, 5, WARM, "water (°C)")
    day_band(water_n, water_low, water_high, scale, WARM)
    day_line(water_n, water_sum, scale, WARM)
}

# One thin stroke per hour that could not be used, in the colour of its reason.
function draw_quality(    t, i, k, x, from) {
    panel(716, 740, "Readings that were not used")
    x = 470
    for (i = 1; i <= 4; i++) {
        k = KINDS[i]
        key_box(x, 702, INK[k], "", NAME[k] " (" rejected[k] + 0 ")")
        x += 54 + 6.6 * length(NAME[k] " (" rejected[k] + 0 ")")
    }
    month_axis(1)
    for (t = 0; t < hours; t = t + 1) {
        if (!(t in why)) continue
        from = t
        while (((t + 1) in why) && why[t + 1] == why[from]) t++
        x = x_of(t + 1) - x_of(from)
        box(x_of(from), P_TOP, x < 1.2 ? 1.2 : x, P_BOTTOM - P_TOP, INK[why[from]], "")
    }
}

# The highest flood hour by hour: four days before the peak, six after it.
function draw_flood(    a, b, t, scale, wet, quick, flows, x, i) {
    a = top_at - 96; if (a < 0) a = 0
    b = a + 240; if (b > hours - 1) b = hours - 1
    a -= (a + first) % 24
    for (t = a; t <= b; t++) {
        if ((t in rain) && rain[t] > wet) wet = rain[t]
        if ((t in flow) && flow[t] > flows) flows = flow[t]
    }
    scale = int(top * 1.55 / 0.5 + 1) * 0.5
    flows = int(flows * 1.35 / 20 + 1) * 20
    X_FROM = a; X_TO = b
    panel(846, 1112, floods ? "The flood, hour by hour" : "The highest water, hour by hour")
    key_line(470, 832, BLUE, "level"); key_line(560, 832, GREEN, "flow (m³/s, right)"); key_box(720, 832, RAIN, "", sprintf("rain per hour (longest bar: %.1f mm)", wet))
    for (t = a; t <= b; t += 24) {
        x = x_of(t); when(t)
        stroke(x, P_TOP, x, P_BOTTOM, "#eef1f4", 1, "")
        stroke(x, P_BOTTOM, x, P_BOTTOM + 5, "#7b8794", 1, "")
        if (t + 12 <= b) text_at(x_of(t + 12), P_BOTTOM + 20, 12.5, "middle", "#52606d", "", DAY_OF " " MONTH[MONTH_OF])
    }
    left_axis(scale, 6, BLUE, "level (m)")
    right_axis(flows, 6, 1, 0, GREEN, "flow (m³/s)")
    rain_bars(rain, a, b - 1, 1, wet, 0.3)
    threshold(scale, "flood above " sprintf("%.1f", FLOOD_M) " m")
    hour_line(flow, a, b, flows, GREEN, 1.8)
    hour_line(level, a, b, scale, BLUE, 2.2)
    x = x_of(top_at)
    put("<circle cx=\"" px(x) "\" cy=\"" px(y_of(top, scale)) "\" r=\"4.5\" fill=\"#ffffff\" stroke=\"" ALARM "\" stroke-width=\"2\"/>")
    text_at(x + 12, y_of(top, scale) - 6, 13, "start", "#1f2933", "700", sprintf("peak %.2f m, %s", top, when(top_at)))
}
