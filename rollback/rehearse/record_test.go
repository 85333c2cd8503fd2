package rehearse

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

func good() Record {
	began := time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)
	return Record{
		ID: "7f3a", Agency: "health", Began: began, Ended: began.Add(time.Minute), Version: "1.4", Mapping: routing.Digest{1},
		Mailboxes: 100, Of: 320,
		Cutover: Switch{Done: true, Seconds: 0.4, Closed: 0.02, PutOff: 3}, Rollback: Switch{Done: true, Seconds: 1.4, Closed: 1.1, Held: 40, Replayed: 40},
		Mail: Mail{Sent: 900, Right: 900}, Logins: Logins{Right: 90, PutOff: 2, Moved: 12}, Passed: true,
	}
}

// A record is read as it was written, and one that contradicts itself never passes.
func TestRecord(t *testing.T) {
	want := good()
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRecord(text); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if want.Age(want.Ended.Add(time.Hour)) != time.Hour || Key("health") != "rehearsal/health" {
		t.Error("age or key")
	}
	for name, damage := range map[string]func(*Record){
		"no agency":            func(r *Record) { r.Agency = "" },
		"no id":                func(r *Record) { r.ID = "" },
		"it ended before":      func(r *Record) { r.Ended = r.Began.Add(-1) },
		"no version":           func(r *Record) { r.Version = "" },
		"no mapping":           func(r *Record) { r.Mapping = routing.Digest{} },
		"no mailboxes":         func(r *Record) { r.Mailboxes = 0 },
		"more than there are":  func(r *Record) { r.Mailboxes = 321 },
		"negative time":        func(r *Record) { r.Rollback.Closed = -1 },
		"negative count":       func(r *Record) { r.Mail.Lost = -1 },
		"lost one, and passed": func(r *Record) { r.Mail.Lost, r.Mail.Right = 1, 899 },
		"not rolled back":      func(r *Record) { r.Rollback.Done = false },
		"nothing was sent":     func(r *Record) { r.Mail = Mail{} },
		"nobody logged in":     func(r *Record) { r.Logins = Logins{} },
		"a login was refused":  func(r *Record) { r.Logins.Refused = 1 },
		"a problem":            func(r *Record) { r.Problems = []string{"the spool isn't empty"} },
		"many problems":        func(r *Record) { r.Passed, r.Problems = false, make([]string, MaxProblems+1) },
	} {
		r := good()
		damage(&r)
		if _, err := r.Text(); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "null", "{}", "[]", text[:len(text)-1], strings.Replace(text, `"mapping":"01`, `"mapping":"x1`, 1)} {
		if _, err := ParseRecord(bad); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
	failed := good()
	failed.Passed, failed.Mail.Lost, failed.Mail.Right = false, 1, 899
	if _, err := failed.Text(); err != nil {
		t.Errorf("one that failed is a record too: %v", err)
	}
}
