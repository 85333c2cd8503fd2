package desk

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"mailcutover/rollback/verify"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Findings fit the table's documents whatever people write about them, and come back as they
// were, in their order; how many were too many is said.
func TestPages(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 1000) // as the API lets it be
	for _, c := range []struct {
		findings int
		reason   string
		left     int
	}{{0, "", 0}, {1, long, 0}, {perPage, "", 0}, {perPage + 1, "", 0}, {200, long, 0}, {perPage*maxPages + 1, "", 1}} {
		all := make([]Tracked, c.findings)
		for i := range all {
			f := verify.Finding{ID: fmt.Sprint(i), Kind: verify.Crossed, Agency: "health", Mailbox: routing.MailboxID{15: 1}, Address: "anna@health.example", Folders: []string{strings.Repeat("<ä>", 20)}}
			all[i] = Tracked{Finding: f, State: Dismissed, Who: "Anna Berg", Reason: c.reason}
		}
		s := routing.NewState(routing.Position{})
		for _, now := range [][]Tracked{all, all[:len(all)/2]} { // the second in the place of the first
			docs, _, left, err := pages(s, "health", now)
			if want := max(0, c.left-(c.findings-len(now))); err != nil || left != want {
				t.Fatalf("%d findings: %d are left, want %d, %v", len(now), left, want, err)
			}
			for _, d := range docs {
				if len(d.Text) > table.MaxDetailBytes {
					t.Errorf("%d findings: document %s has %d bytes", len(now), d.Key, len(d.Text))
				}
			}
			if s, err = s.Apply(routing.Update{Documents: docs}); err != nil {
				t.Fatal(err)
			}
			got, err := Findings(s, "health")
			if want := now[:len(now)-left]; err != nil || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
				t.Errorf("%d findings: %d came back, %v", len(want), len(got), err)
			}
		}
	}
}
