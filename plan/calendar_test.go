package plan

import (
	"strings"
	"testing"
	"time"
)

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	return must(t, v, err)
}

// Easter Sundays as published, the earliest and the latest possible one among them.
func TestEaster(t *testing.T) {
	for _, want := range []string{"1818-03-22", "1943-04-25", "2000-04-23", "2008-03-23", "2019-04-21", "2024-03-31", "2025-04-20", "2026-04-05", "2027-03-28", "2038-04-25", "2049-04-18", "2076-04-19"} {
		day, err := ParseDay(want)
		if got := Easter(must(t, day, err).Year); got != day {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestHolidays(t *testing.T) {
	everywhere := "01-01 04-03 04-06 05-01 05-14 05-25 10-03 12-25 12-26"
	for state, more := range map[State]string{
		Nationwide: "", "BE": "03-08", "BB": "04-05 05-24 10-31", "BW": "01-06 06-04 11-01", "BY": "01-06 06-04 11-01", "HB": "10-31", "HE": "06-04", "HH": "10-31",
		"MV": "03-08 10-31", "NI": "10-31", "NW": "06-04 11-01", "RP": "06-04 11-01", "SH": "10-31", "SL": "06-04 08-15 11-01", "SN": "10-31 11-18", "ST": "01-06 10-31", "TH": "09-20 10-31",
	} {
		want := make(map[string]bool)
		for _, d := range strings.Fields(everywhere + " " + more) {
			want["2026-"+d] = true
		}
		last := Day{}
		for _, h := range Holidays(state, 2026) {
			if !want[h.Day.String()] {
				t.Errorf("%s: %s (%s) is none", state, h.Day, h.Name)
			}
			if h.Day.Compare(last) <= 0 {
				t.Errorf("%s: %s comes after %s", state, h.Day, last)
			}
			delete(want, h.Day.String())
			last = h.Day
		}
		if len(want) > 0 {
			t.Errorf("%s: %v are missing", state, want)
		}
	}
	if len(states) != 16 {
		t.Errorf("%d states", len(states))
	}
	if all := Holidays("BE", 2018); len(all) != 9 {
		t.Errorf("Berlin in 2018, before there was a Women's Day: %v", all)
	}
	if all := Holidays("MV", 2022); len(all) != 10 {
		t.Errorf("Mecklenburg in 2022: %v", all)
	}
	// Repentance Day is the Wednesday before 23 November, also where the 22nd is one.
	for year, want := range map[int]string{2023: "2023-11-22", 2024: "2024-11-20", 2025: "2025-11-19", 2026: "2026-11-18", 2028: "2028-11-22", 2029: "2029-11-21"} {
		found := ""
		for _, h := range Holidays("SN", year) {
			if h.Name == "Repentance Day" {
				found = h.Day.String()
			}
		}
		if found != want {
			t.Errorf("Repentance Day %s, want %s", found, want)
		}
	}
	for _, bad := range []string{"XX", "be", "DE-BE", "Berlin"} {
		if _, err := ParseState(bad); err == nil {
			t.Errorf("%q is a state", bad)
		}
	}
}

func schedule(t *testing.T, zone string, state State, windows ...string) *Schedule {
	t.Helper()
	c := Calendar{Zone: zone, State: state}
	for _, text := range windows {
		days, span, _ := strings.Cut(text, " ")
		from, to, _ := strings.Cut(span, "-")
		var w Window
		for _, d := range strings.Split(days, ",") {
			w.Days = append(w.Days, On(d))
		}
		if err := w.From.UnmarshalText([]byte(from)); err != nil {
			t.Fatal(err)
		}
		if err := w.To.UnmarshalText([]byte(to)); err != nil {
			t.Fatal(err)
		}
		c.Windows = append(c.Windows, w)
	}
	s, err := c.Schedule()
	return must(t, s, err)
}

const everyDay = "mon,tue,wed,thu,fri,sat,sun"

// Windows as they are on days of which clocks are changed, in Berlin: on 29 March 2026 at 01:00 UTC
// from 02:00 to 03:00, on 25 October 2026 at 01:00 UTC from 03:00 to 02:00.
func TestWindowsWhereClocksAreChanged(t *testing.T) {
	for name, c := range map[string]struct {
		window, from, begin, end string
	}{
		"a winter night":                       {everyDay + " 22:00-06:00", "2026-02-03T12:00:00Z", "2026-02-03T21:00:00Z", "2026-02-04T05:00:00Z"},
		"a summer night":                       {everyDay + " 22:00-06:00", "2026-07-03T12:00:00Z", "2026-07-03T20:00:00Z", "2026-07-04T04:00:00Z"},
		"over the spring change: an hour less": {everyDay + " 22:00-06:00", "2026-03-28T12:00:00Z", "2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"},
		"over the autumn change: an hour more": {everyDay + " 22:00-06:00", "2026-10-24T12:00:00Z", "2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z"},
		"begins in the hour that isn't there":  {"sun 02:30-06:00", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T04:00:00Z"},
		"ends in the hour that isn't there":    {"sat 22:00-02:30", "2026-03-28T12:00:00Z", "2026-03-28T21:00:00Z", "2026-03-29T01:00:00Z"},
		"begins in the hour that comes twice":  {"sun 02:30-06:00", "2026-10-24T12:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T05:00:00Z"},
		"ends in the hour that comes twice":    {"sat 22:00-02:30", "2026-10-24T12:00:00Z", "2026-10-24T20:00:00Z", "2026-10-25T00:30:00Z"},
		"within the hour that comes twice":     {"sun 02:10-02:50", "2026-10-24T12:00:00Z", "2026-10-25T00:10:00Z", "2026-10-25T00:50:00Z"},
		"begins when the clocks are put back":  {"sun 03:00-05:00", "2026-10-24T12:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T04:00:00Z"},
		"until midnight":                       {"fri 18:00-24:00", "2026-02-06T12:00:00Z", "2026-02-06T17:00:00Z", "2026-02-06T23:00:00Z"},
		"the whole day":                        {"sun 00:00-24:00", "2026-10-24T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
	} {
		s := schedule(t, "Europe/Berlin", "", c.window)
		got, ok := s.Next(at(t, c.from), time.Minute)
		if !ok || !got.Begin.Equal(at(t, c.begin)) || !got.End.Equal(at(t, c.end)) {
			t.Errorf("%s: %s to %s, want %s to %s", name, got.Begin.UTC().Format(time.RFC3339), got.End.UTC().Format(time.RFC3339), c.begin, c.end)
		}
	}
	// An hour of the window that isn't there at all.
	if got, ok := schedule(t, "Europe/Berlin", "", "sun 02:10-02:50").Next(at(t, "2026-03-28T12:00:00Z"), time.Minute); !ok || DayOf(got.Begin.In(time.UTC)).String() != "2026-04-05" {
		t.Errorf("a window within the hour that isn't there: %v", got)
	}
}

// At no moment of an open window, all over two years, do the clocks on the wall show a time
// outside it; and where they show one inside, it is open, but for the pass that is left out.
func TestWindowsShowTheirTimes(t *testing.T) {
	for _, text := range []string{everyDay + " 22:00-06:00", everyDay + " 02:30-02:45", everyDay + " 01:30-02:30", everyDay + " 02:30-05:00"} {
		s := schedule(t, "Europe/Berlin", "", text)
		w := &s.calendar.Windows[0]
		inside := func(at time.Time) bool {
			local := at.In(s.place)
			c := Clock(60*local.Hour() + local.Minute())
			if w.To > w.From {
				return c >= w.From && c < w.To
			}
			return c >= w.From || c < w.To
		}
		for _, day := range []string{"2026-03-28", "2026-10-24", "2027-03-27", "2027-10-30", "2026-06-01"} {
			begin := at(t, day+"T12:00:00Z")
			missed := 0
			for m := range 24 * 12 {
				now := begin.Add(time.Duration(m) * 5 * time.Minute)
				_, open := s.Open(now)
				if open && !inside(now) {
					t.Fatalf("%s is open at %s", text, now.In(s.place))
				}
				if !open && inside(now) {
					missed += 5
				}
			}
			if missed > 60 {
				t.Errorf("%s: closed for %d of its minutes on %s", text, missed, day)
			}
		}
	}
}

func TestHolidaysAndWindows(t *testing.T) {
	// 1 May 2026 is a Friday; 3 October 2026 a Saturday; 25 May 2026 Whit Monday.
	s := schedule(t, "Europe/Berlin", "BE", "mon,tue,wed,thu,fri 20:00-23:00", "holiday 08:00-18:00")
	for name, c := range map[string]struct{ from, begin string }{
		"a holiday on a weekday": {"2026-05-01T00:00:00Z", "2026-05-01T06:00:00Z"},
		"a holiday on a weekend": {"2026-10-03T00:00:00Z", "2026-10-03T06:00:00Z"},
		"the evening of it":      {"2026-05-01T16:30:00Z", "2026-05-04T18:00:00Z"},
		"a usual day":            {"2026-05-05T00:00:00Z", "2026-05-05T18:00:00Z"},
	} {
		if got, ok := s.Next(at(t, c.from), time.Minute); !ok || !got.Begin.Equal(at(t, c.begin)) {
			t.Errorf("%s: %s, want %s", name, got.Begin.UTC(), c.begin)
		}
	}
	// A window over midnight belongs to the day on which it begins.
	over := schedule(t, "Europe/Berlin", "BE", "thu 22:00-04:00")
	if _, open := over.Open(at(t, "2026-05-01T01:00:00Z")); !open {
		t.Error("Thursday's window ends at midnight, because Friday is a holiday")
	}
	if _, open := over.Open(at(t, "2026-05-14T21:00:00Z")); open {
		t.Error("a window begins on Ascension")
	}
	c := s.calendar
	c.Holidays, c.Never = []Day{{2026, 12, 24}}, []Day{{2026, 12, 25}, {2026, 12, 26}}
	named, err := c.Schedule()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := named.Next(at(t, "2026-12-23T22:30:00Z"), time.Minute); !got.Begin.Equal(at(t, "2026-12-24T07:00:00Z")) {
		t.Errorf("the next window before Christmas begins %s", got.Begin)
	}
	if got, _ := named.Next(at(t, "2026-12-24T18:00:00Z"), time.Minute); !got.Begin.Equal(at(t, "2026-12-28T19:00:00Z")) {
		t.Errorf("the next window after it begins %s", got.Begin)
	}
}

func TestNextWindowIsLongEnough(t *testing.T) {
	s := schedule(t, "Europe/Berlin", "", "mon 20:00-21:00", "sat 20:00-24:00", "sun 00:00-06:00")
	monday := at(t, "2026-06-01T18:30:00Z") // 20:30 there
	if got, ok := s.Next(monday, 30*time.Minute); !ok || !got.Begin.Equal(monday) {
		t.Errorf("half an hour is left: %v", got)
	}
	got, ok := s.Next(monday, 31*time.Minute)
	if !ok || !got.Begin.Equal(at(t, "2026-06-06T18:00:00Z")) || got.End.Sub(got.Begin) != 10*time.Hour {
		t.Errorf("windows that touch are one: %v", got)
	}
	if _, ok := s.Next(monday, 12*time.Hour); ok {
		t.Error("there is a window of twelve hours")
	}
	if _, open := s.Open(at(t, "2026-06-01T19:00:00Z")); open {
		t.Error("open at the moment of its end")
	}
}

func TestBadCalendars(t *testing.T) {
	good := Calendar{Zone: "Europe/Berlin", Windows: []Window{{Days: []On{"mon"}, From: 60, To: 120}}}
	if _, err := good.Schedule(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(c *Calendar){
		"zone":                func(c *Calendar) { c.Zone = "Europe/Bonn" },
		`zone ""`:             func(c *Calendar) { c.Zone = "" },
		`zone "Local"`:        func(c *Calendar) { c.Zone = "Local" },
		"no window":           func(c *Calendar) { c.Windows = nil },
		"no days":             func(c *Calendar) { c.Windows = []Window{{From: 1, To: 2}} },
		`day "monday"`:        func(c *Calendar) { c.Windows = []Window{{Days: []On{"monday"}, From: 1, To: 2}} },
		"23:59":               func(c *Calendar) { c.Windows = []Window{{Days: []On{"mon"}, From: 1440, To: 2}} },
		`state "XX"`:          func(c *Calendar) { c.State = "XX" },
		"at most 20":          func(c *Calendar) { c.Windows = make([]Window, 21) },
		"at most 200 of each": func(c *Calendar) { c.Never = make([]Day, 201) },
	} {
		bad := good
		spoil(&bad)
		if _, err := bad.Schedule(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	for _, s := range []string{"24:01", "7:00", "12:60", "", "12", "-1:00", "aa:bb"} {
		if _, err := ParseClock(s); err == nil {
			t.Errorf("%q is a time of day", s)
		}
	}
}
