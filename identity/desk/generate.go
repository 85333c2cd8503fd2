package desk

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/routing"
)

// Generated are lists of an agency's mailboxes, and how they came about.
type Generated struct {
	Lists    []*list.List
	Recorded int // mailboxes as lists in force have them
	Added    int // that no list in force names, from the directory

	// Differences are what the directory says otherwise than the lists in force, in the order of
	// the addresses. Where there are some and they weren't accepted, there are no lists.
	Differences []list.Difference
}

// ErrDiffers is the error of [Desk.Generate] where directory and lists in force say different
// things of a mailbox.
var ErrDiffers = errors.New("the directory says otherwise than the lists in force")

// Generate makes lists of all mailboxes of an agency, so that a second phase moves what the first
// one did. What lists in force name is taken from them, row by row; mailboxes that none names
// come from the directory. Where the two contradict each other, nothing is made: the error is
// ErrDiffers, and Generated has what it is. With accept the directory's word is taken for that;
// who approves the lists reads it again.
func (d *Desk) Generate(id routing.AgencyID, by string, accept bool) (*Generated, error) {
	source, _, err := d.fresh()
	if err == nil {
		err = d.modelled(id)
	}
	if err != nil {
		return nil, err
	}
	entries, unreadable := register.Lists(d.o.State(), "") // a mailbox may come from another agency
	if err := errors.Join(unreadable...); err != nil {
		return nil, err
	}
	first := 1
	for i := range entries {
		if entries[i].List.Agency == id {
			first = max(first, entries[i].List.Number+1)
		}
	}
	objects := source.Objects(id)
	rows, err := list.Rows(id, objects)
	if err != nil {
		return nil, err
	}
	out := new(Generated)
	compareRecord(out, id, rows, objects, register.InForce(entries))
	if len(out.Differences) > 0 && !accept {
		return out, fmt.Errorf("agency %s: %w in %d rows", id, ErrDiffers, len(out.Differences))
	}
	out.Lists, err = list.Make(list.Order{Agency: id, First: first, Size: d.o.ListRows, By: by, Made: d.now().UTC(), Key: d.o.Key}, rows)
	return out, err
}

// compareRecord puts the record's word into rows where the directory's object allows it, and
// notes where it doesn't.
func compareRecord(out *Generated, id routing.AgencyID, rows []list.Row, objects []*directory.Object, record []list.Row) {
	byID := make(map[routing.MailboxID]*list.Row, len(record))
	byAddress := make(map[routing.Address]*list.Row, len(record))
	for i := range record {
		r := &record[i]
		byID[r.ID] = r
		byAddress[r.Address] = r
	}
	known := make(map[routing.MailboxID]*directory.Object, len(objects))
	for _, o := range objects {
		known[o.ID] = o
	}
	note := func(d list.Difference) { out.Differences = append(out.Differences, d) }
	named := make(map[routing.MailboxID]bool, len(rows))
	for i := range rows {
		row := &rows[i]
		named[row.ID] = true
		was, o := byID[row.ID], known[row.ID]
		d := list.Difference{Address: row.Address, ID: row.ID}
		if was == nil {
			out.Added++
		} else {
			out.Recorded++
			switch {
			case !slices.Contains(o.Addresses, was.Address):
				d.Change, d.Was = list.Readdressed, was.Address
			case was.Agency != id:
				d.Change, d.From = list.Moved, was.Agency
			case was.Account != "" && o.Account != "" && list.AccountKey(was.Account) != list.AccountKey(o.Account):
				d.Change, d.Account = list.Renamed, was.Account
			default:
				row.Address = was.Address
			}
		}
		for _, a := range o.Addresses {
			if other := byAddress[a]; other != nil && other.ID != row.ID {
				d.Change, d.Address, d.WasID = list.Repaired, a, other.ID // says more than the others
			}
		}
		if d.Change != "" {
			note(d)
		}
	}
	for i := range record {
		if r := &record[i]; r.Agency == id && !named[r.ID] {
			note(list.Difference{Change: list.Gone, Address: r.Address, ID: r.ID})
		}
	}
	slices.SortStableFunc(out.Differences, func(a, b list.Difference) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Change, b.Change))
	})
}

// SayDifference returns in words what the directory says otherwise than a list in force.
func SayDifference(d *list.Difference) string {
	switch d.Change {
	case list.Gone:
		return fmt.Sprintf("%s: a list in force has the mailbox %s, the directory doesn't count it to the agency", d.Address, d.ID)
	case list.Readdressed:
		return fmt.Sprintf("%s: a list in force has the mailbox %s with %s, which the directory doesn't give it", d.Address, d.ID, d.Was)
	case list.Repaired:
		return fmt.Sprintf("%s: a list in force has it for the mailbox %s, the directory for %s", d.Address, d.WasID, d.ID)
	case list.Moved:
		return fmt.Sprintf("%s: a list in force counts the mailbox %s to agency %s", d.Address, d.ID, d.From)
	case list.Renamed:
		return fmt.Sprintf("%s: a list in force has the mailbox %s with the account %q, the directory has another", d.Address, d.ID, d.Account)
	}
	return fmt.Sprintf("%s: %s", d.Address, d.Change)
}
