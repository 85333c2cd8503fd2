package desk

import (
	"errors"
	"fmt"

	"mailcutover/identity/check"
	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/identity/watch"
	"mailcutover/mailboxlist"
	"mailcutover/routing"
)

// Checked is a file, read and compared with everything.
type Checked struct {
	List     *list.List     // nil if the file is no table; not to be used unless Clean
	Problems *list.Problems // what is wrong with the file itself; nil: nothing
	Result   *check.Result  // nil without a List
}

// Clean reports whether the list may be proposed.
func (c *Checked) Clean() bool { return c.Problems == nil && c.Result != nil && c.Result.Clean() }

// Check reads a list that is said to be an agency's, and compares it. id is the list's, if the
// file names none; name is the file's, for people. The error says that it couldn't be
// checked, and nothing of the list.
func (d *Desk) Check(text []byte, agency routing.AgencyID, id, name string) (*Checked, error) {
	if err := d.modelled(agency); err != nil {
		return nil, err
	}
	if _, _, err := d.fresh(); err != nil {
		return nil, err
	}
	c := new(Checked)
	var err error
	c.List, err = list.Read(text, list.Options{Agency: agency, ID: id, Source: name, Key: &d.o.Key})
	if err != nil && !errors.As(err, &c.Problems) {
		return nil, err
	}
	if c.List == nil || len(c.List.Rows) == 0 {
		return c, nil
	}
	var key *list.Key
	if !c.List.Foreign {
		key = &d.o.Key
	}
	if c.Result, err = d.compare(c.List, key); err != nil || !c.Clean() {
		return c, err
	}
	if d.address(c.List) {
		c.Result, err = d.compare(c.List, key)
	}
	return c, err
}

// address fills in the addresses of a list that has accounts only, and reports whether it
// did. The list has been found clean by its accounts.
func (d *Desk) address(l *list.List) bool {
	filled := false
	source, _, err := d.fresh()
	if err != nil {
		return false
	}
	known := byID(source, l.Agency)
	for i := range l.Rows {
		if row := &l.Rows[i]; row.Address == "" {
			if o := known[row.ID]; o != nil {
				row.Address, filled = o.Primary(), true
			}
		}
	}
	return filled
}

// Rechecked is a list that was compared again, and what it would store by the same reading.
type Rechecked struct {
	Result *check.Result

	// Mailboxes is what activating the list stores: for each of its rows all that the directory
	// says of the mailbox. It may change answers: whoever stores it looks. nil unless the list
	// is clean.
	Mailboxes *mailboxlist.List
}

// Recheck compares a list that was found clean before, without its digests. The error says that
// it couldn't be compared, or of which rows the directory lacks something that has to be stored.
func (d *Desk) Recheck(l *list.List) (Rechecked, error) {
	source, target, err := d.fresh()
	if err != nil {
		return Rechecked{}, err
	}
	r, err := d.compareWith(source, target, l, nil)
	if err != nil || !r.Clean() {
		return Rechecked{Result: r}, err
	}
	rows, err := d.mailboxes(source, l)
	return Rechecked{Result: r, Mailboxes: rows}, err
}

func (d *Desk) compare(l *list.List, key *list.Key) (*check.Result, error) {
	source, target, err := d.fresh()
	if err != nil {
		return nil, err
	}
	return d.compareWith(source, target, l, key)
}

func (d *Desk) compareWith(source, target *watch.View, l *list.List, key *list.Key) (*check.Result, error) {
	state := d.o.State()
	in := check.Input{List: l, Key: key, Source: source.Facts, State: state}
	if target != nil {
		in.Target = target.Facts
	}
	in.Stored = func(id routing.MailboxID) (row routing.Row, ok bool) {
		record, known := state.Agency(l.Agency)
		o, _, found := source.Mailbox(id)
		if !known || !found {
			return row, false
		}
		row, err := d.o.Model.Row(o, &record)
		return row, err == nil
	}
	entries, unreadable := register.Lists(state, l.Agency)
	if err := errors.Join(unreadable...); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.List.ID != l.ID && (e.Standing == register.Active || e.Standing == register.Withdrawn) {
			in.Earlier = append(in.Earlier, e.List)
		}
	}
	return check.Check(in), nil
}

// byID are an agency's objects in a reading, by directory id.
func byID(v *watch.View, id routing.AgencyID) map[routing.MailboxID]*directory.Object {
	out := make(map[routing.MailboxID]*directory.Object)
	for _, o := range v.Objects(id) {
		out[o.ID] = o
	}
	return out
}

// ErrIncomplete is wrapped by errors about objects of which no row can be made.
var ErrIncomplete = errors.New("the directory lacks what its mailboxes need")

// mailboxes returns what activating a list stores, by a reading.
func (d *Desk) mailboxes(source *watch.View, l *list.List) (*mailboxlist.List, error) {
	record, ok := d.o.State().Agency(l.Agency)
	if !ok {
		return nil, fmt.Errorf("list %s: no agency %q in the table", l.ID, l.Agency)
	}
	out := new(mailboxlist.List)
	known := byID(source, l.Agency)
	var errs []error
	for i := range l.Rows {
		o := known[l.Rows[i].ID]
		if o == nil {
			errs = append(errs, fmt.Errorf("%s: the directory doesn't count the mailbox to the agency", l.Rows[i].Address))
			continue
		}
		row, err := d.o.Model.Row(o, &record)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.Mailboxes = append(out.Mailboxes, mailboxlist.Mailbox{Line: i + 1, Agency: l.Agency, Row: row})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("list %s: %w: %w", l.ID, ErrIncomplete, err)
	}
	return out, nil
}
