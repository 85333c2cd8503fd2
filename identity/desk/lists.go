package desk

import (
	"errors"
	"fmt"

	"mailcutover/identity/check"
	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/mailboxlist"
	"mailcutover/routing"
)

// Generate makes lists of all mailboxes that the directory counts to an agency.
func (d *Desk) Generate(id routing.AgencyID, by string) ([]*list.List, error) {
	source, _, err := d.fresh()
	if err == nil {
		err = d.modelled(id)
	}
	if err != nil {
		return nil, err
	}
	first := 1
	entries, _ := register.Lists(d.o.State(), id) // one that can't be read still has its id
	for _, e := range entries {
		first = max(first, e.List.Number+1)
	}
	return list.Generate(list.Order{Agency: id, First: first, Size: d.o.ListRows, By: by, Made: d.now().UTC(), Key: d.o.Key}, source.Objects(id))
}

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
	objects := d.objects(l.Agency)
	for i := range l.Rows {
		if row := &l.Rows[i]; row.Address == "" {
			if o := objects[row.ID]; o != nil {
				row.Address, filled = o.Primary(), true
			}
		}
	}
	return filled
}

// Recheck compares a list that was found clean before, without its digests.
func (d *Desk) Recheck(l *list.List) (*check.Result, error) { return d.compare(l, nil) }

func (d *Desk) compare(l *list.List, key *list.Key) (*check.Result, error) {
	source, target, err := d.fresh()
	if err != nil {
		return nil, err
	}
	state := d.o.State()
	in := check.Input{List: l, Key: key, Source: source.Facts, State: state}
	if target != nil {
		in.Target = target.Facts
	}
	entries, unreadable := register.Lists(state, l.Agency)
	if err := errors.Join(unreadable...); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.List.ID != l.ID && e.Standing != register.Proposed {
			in.Earlier = append(in.Earlier, e.List)
		}
	}
	return check.Check(in), nil
}

// objects are an agency's in the last reading, by directory id.
func (d *Desk) objects(id routing.AgencyID) map[routing.MailboxID]*directory.Object {
	out := make(map[routing.MailboxID]*directory.Object)
	if source, _, err := d.fresh(); err == nil {
		for _, o := range source.Objects(id) {
			out[o.ID] = o
		}
	}
	return out
}

// Mailboxes returns what activating a list stores: for each of its rows all that the
// directory says of the mailbox. It may change answers: whoever stores it looks.
func (d *Desk) Mailboxes(l *list.List) (*mailboxlist.List, error) {
	if _, _, err := d.fresh(); err != nil {
		return nil, err
	}
	record, ok := d.o.State().Agency(l.Agency)
	if !ok {
		return nil, fmt.Errorf("list %s: no agency %q in the table", l.ID, l.Agency)
	}
	out := new(mailboxlist.List)
	objects := d.objects(l.Agency)
	var errs []error
	for i := range l.Rows {
		o := objects[l.Rows[i].ID]
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
		return nil, fmt.Errorf("list %s: %w", l.ID, err)
	}
	return out, nil
}
