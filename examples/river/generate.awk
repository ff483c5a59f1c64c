# Makes readings.csv: one hydrological year of an invented river gauge, hour by hour.
#
#   awk -f generate.awk > readings.csv
#
# The file is made once and kept in the tree; this script is here so that everybody can see where
# the numbers come from. It is deterministic: it has its own random numbers, because those of awk
# differ from one awk to the next.
#
# What is in it, so that the analysis has something to find:
#   storms (more of them in winter), snow melt in spring, low water in summer;
#   one flood in January, a smaller one in March, and a cloudburst in July;
#   hours without a row, rows with an empty field, a logger that answers -9999, spikes, and a
#   float that was stuck for two days.

# Park and Miller's generator: the product stays below 2^53, so every awk computes the same.
function uniform() {
    seed = (seed * 16807) % 2147483647
    return seed / 2147483647
}

function normal() {
    return sqrt(-2 * log(uniform() + 1e-12)) * cos(6.283185307 * uniform())
}

function leap(y) { return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0 }

function next_day() {
    day++
    if (day > month_days[month] + (month == 2 && leap(year))) { day = 1; month++ }
    if (month > 12) { month = 1; year++ }
}

# Rain of this hour in mm. Storms begin by chance, last some hours and rise and fall inside.
function rain_now(hour_of_year, season,    shape) {
    if (storm_left <= 0 && uniform() < 0.0130 + 0.0060 * season) {
        storm_length = 4 + int(uniform() * 22)
        storm_left = storm_length
        storm_depth = (0.5 + 2.2 * uniform() * uniform()) * (1 + 0.3 * season)
    }
    if (hour_of_year >= 2546 && hour_of_year < 2606) {          # mid January: sixty hours of rain
        shape = 1 - (hour_of_year - 2576) * (hour_of_year - 2576) / 900
        return (0.4 + 2.5 * shape) * (0.7 + 0.6 * uniform())
    }
    if (hour_of_year >= 4010 && hour_of_year < 4040) {          # March: on melting snow
        return 1.5 * (0.6 + 0.8 * uniform())
    }
    if (hour_of_year >= 6931 && hour_of_year < 6935) return 13 * (0.7 + 0.6 * uniform())   # July: a cloudburst
    if (storm_left <= 0) return 0
    storm_left--
    shape = sin(3.14159265 * (storm_left + 0.5) / storm_length)
    return storm_depth * shape * (0.5 + uniform())
}

BEGIN {
    seed = 20241001
    split("31 28 31 30 31 30 31 31 30 31 30 31", month_days, " ")
    year = 2024; month = 10; day = 1
    fast = 0.4; slow = 1.1; soil = 0.3; air = 0
    print "# gauge: Arrow at Kingsmill Weir (invented); catchment 214 km2; times in UTC"
    print "time,level_m,flow_m3s,rain_mm,water_c"
    for (h = 0; h < 8760; h++) {
        season = cos(6.283185307 * (h - 2500) / 8760)           # 1 in mid January, -1 in mid July
        rain = rain_now(h, season)
        if (rain < 0.05) rain = 0

        # A wet catchment lets more of the rain run off; summer dries it.
        soil += rain * 0.006 - soil * (0.0021 - 0.0013 * season)
        if (soil > 1) soil = 1
        runoff = rain * (0.04 + 0.50 * soil * soil) * 59.4       # mm over 214 km2 in an hour, as m3/s
        melt = (h > 3650 && h < 4250) ? 9 * sin(3.14159265 * (h - 3650) / 600) : 0
        mid += (runoff - mid) / 7                                # the rain needs hours to reach the gauge
        fast += (mid - fast) / 12
        slow += (rain * soil * 24 + melt - slow) / 620
        flow = fast + slow + 0.9

        level = 0.22 + 0.235 * exp(0.56 * log(flow)) + 0.006 * normal()
        air = 0.985 * air + 0.22 * normal()
        water = 10.4 - 7.1 * cos(6.283185307 * (h - 2740) / 8760) + air \
              + (0.5 - 0.4 * season) * sin(6.283185307 * ((h % 24) - 9) / 24)
        if (water < 0.1) water = 0.1

        emit(h)
        if (h % 24 == 23) next_day()
    }
}

# One row, with what goes wrong with real instruments.
function emit(h,    level_text, water_text, rain_text) {
    if (h >= 1131 && h < 1171) return                            # November: the modem was off
    if (h >= 5215 && h < 5227) return                            # May: battery changed late
    if (uniform() < 0.0035) return                               # a row lost now and then
    level_text = sprintf("%.3f", level)
    water_text = sprintf("%.2f", water)
    rain_text = sprintf("%.1f", rain)
    if (h >= 7704 && h < 7757) {                                 # August: the float was stuck
        if (stuck == "") stuck = level_text
        level_text = stuck
    }
    if (h >= 3340 && h < 3349) level_text = "-9999"              # February: the logger's "no answer"
    if (uniform() < 0.0018) level_text = sprintf("%.3f", level + 2.5 + 5 * uniform())   # a spike
    if (uniform() < 0.0012) level_text = "-9999"
    if (uniform() < 0.0040) water_text = ""
    if (uniform() < 0.0010) rain_text = ""
    printf "%04d-%02d-%02dT%02d:00Z,%s,%.2f,%s,%s\n", year, month, day, h % 24, level_text, flow, rain_text, water_text
}
