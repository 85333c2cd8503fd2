package desk

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
)

// The words about a run are so at each of its stages.
func TestTotalsInWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		totals Totals
		want   string
		end    string
	}{
		{"done", Totals{Mailboxes: 3, Done: 3, Delivered: 5, DeliveredBack: 5}, "delivered by us: 5 of 5 back;", "; nothing is left"},
		{"under way", Totals{Mailboxes: 3, Done: 1, Delivered: 5, DeliveredBack: 2}, "delivered by us: 2 of 5 back;", "; left: 2 mailboxes that are not done"},
		{"ledgers not asked yet", Totals{Mailboxes: 3, DeliveredBack: 4}, "delivered by us: 4 back, of how many isn't known yet;", "; left: 3 mailboxes that are not done"},
		{"one put aside", Totals{Mailboxes: 3, Done: 1, Aside: 1, NotBack: 2}, "delivered by us: 0 of 0 back;", "; left: 2 messages that are not back, and 1 mailboxes that could not be brought to the end, and 1 mailboxes that are not done"},
	} {
		if got := c.totals.Text(); !strings.HasPrefix(got, c.want) || !strings.HasSuffix(got, c.end) {
			t.Errorf("%s: %q; want it to begin with %q and to end with %q", c.name, got, c.want, c.end)
		}
	}
}

// How long a share takes still is estimated by what was brought here since it began, and by
// nothing else.
func TestLeft(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 12, 0, 10, 0, time.UTC)
	ended := box{known: true, result: recall.Result{Passes: 1, Done: true}, done: true}
	earlier, failed := ended, box{known: true, reason: mailstore.ErrTimeout.Error()}
	earlier.before = true
	for name, c := range map[string]struct {
		boxes []box
		want  time.Duration
	}{
		"all are done":                   {[]box{ended, earlier}, 0},
		"nothing is known yet":           {[]box{{}, {}}, -1},
		"one of three":                   {[]box{ended, {}, {}}, 20 * time.Second},
		"an earlier process did the one": {[]box{earlier, {}}, -1},
		"the only one fails":             {[]box{failed}, -1},
	} {
		w := &work{d: &Desk{now: func() time.Time { return now }}, began: now.Add(-10 * time.Second)}
		for i := range c.boxes {
			w.order = append(w.order, &c.boxes[i])
		}
		if got := w.left(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}

	// One that was done, of which more was delivered since, and that fails now.
	b := new(box)
	w := &work{d: &Desk{now: func() time.Time { return now }, o: Options{Logger: slog.New(slog.DiscardHandler), FirstPause: time.Second}}, began: now.Add(-10 * time.Second), order: []*box{b}}
	w.note(t.Context(), b, recall.Result{Delivered: 1, Done: true, Passes: 1}, nil, Settings{})
	b.done = false
	w.note(t.Context(), b, recall.Result{}, mailstore.ErrTimeout, Settings{})
	if got := w.left(); got != -1 {
		t.Errorf("done, and begun anew: %s, want -1", got)
	}
}
