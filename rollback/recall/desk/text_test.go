package desk

import (
	"strings"
	"testing"
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
