package list

import (
	"slices"
	"strings"

	"mailcutover/routing"
)

// Difference is one thing that two lists say differently.
type Difference struct {
	Change  Change            `json:"change"`
	Address routing.Address   `json:"address"`           // in the second list, or in the first if it is gone
	ID      routing.MailboxID `json:"id"`                // the same
	Was     routing.Address   `json:"was,omitempty"`     // of the id in the first list, for Readdressed
	WasID   routing.MailboxID `json:"was_id,omitzero"`   // of the address in the first list, for Repaired
	Account string            `json:"account,omitempty"` // of the id in the first list, for Renamed
	From    routing.AgencyID  `json:"from,omitempty"`    // in the first list, for Moved
}

// Change is what became of a row.
type Change string

const (
	Added       Change = "added"       // neither its address nor its id is in the first list
	Gone        Change = "gone"        // neither is in the second
	Readdressed Change = "readdressed" // the id has another address, that nobody had
	Repaired    Change = "repaired"    // the address was another id's: mail goes to somebody else
	Moved       Change = "moved"       // the same pair in another agency
	Renamed     Change = "renamed"     // the same pair with another account
)

// Diff says what b says otherwise than a, by address. Of accounts it says so where both lists have
// one.
func Diff(a, b *List) []Difference {
	ids := make(map[routing.Address]*Row, len(a.Rows))
	addresses := make(map[routing.MailboxID]*Row, len(a.Rows))
	for i := range a.Rows {
		if r := &a.Rows[i]; r.Address != "" { // a list of accounts has none
			ids[r.Address] = r
		}
		addresses[a.Rows[i].ID] = &a.Rows[i]
	}
	var out []Difference
	named := make(map[routing.MailboxID]bool, len(b.Rows))
	used := make(map[routing.Address]bool, len(b.Rows))
	for i := range b.Rows {
		r := &b.Rows[i]
		named[r.ID], used[r.Address] = true, r.Address != ""
		d := Difference{Address: r.Address, ID: r.ID}
		had, was := ids[r.Address], addresses[r.ID]
		switch same := was != nil && was.Address == r.Address; {
		case same && was.Agency != r.Agency:
			d.Change, d.From = Moved, was.Agency
		case same && was.Account != "" && r.Account != "" && AccountKey(was.Account) != AccountKey(r.Account):
			d.Change, d.Account = Renamed, was.Account
		case same:
			continue
		case had != nil:
			d.Change, d.WasID = Repaired, had.ID
			if was != nil {
				d.Was = was.Address
			}
		case was != nil:
			d.Change, d.Was = Readdressed, was.Address
		default:
			d.Change = Added
		}
		out = append(out, d)
	}
	for i := range a.Rows {
		if r := &a.Rows[i]; !named[r.ID] && !used[r.Address] {
			out = append(out, Difference{Change: Gone, Address: r.Address, ID: r.ID})
		}
	}
	slices.SortStableFunc(out, func(x, y Difference) int { return strings.Compare(string(x.Address), string(y.Address)) })
	return out
}
