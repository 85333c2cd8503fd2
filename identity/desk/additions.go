package desk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mailcutover/identity/watch"
	"mailcutover/routing"
)

// alwaysEnter is how many rows may enter an agency however small it is.
const alwaysEnter = 5

// enter lets what is new of an agency into the table, and returns what a human has to see;
// empty: nothing. An agency without mailboxes gets its first ones by a list.
func (d *Desk) enter(ctx context.Context, source *watch.View, id routing.AgencyID) string {
	state := d.o.State()
	record, known := state.Agency(id)
	mapping := state.Mapping(id)
	if d.o.Enter == nil || !known || mapping == nil || mapping.Len() == 0 || record.Operation != "" {
		return ""
	}
	rows, _ := watch.Additions(source, d.o.Model, state, id) // of what no row can be made is drift
	a := &Addition{Agency: id, Rows: unshared(rows), Fixed: d.fixed(source, state, id)}
	alarm := ""
	if n := len(a.Rows) + len(a.Fixed); n > d.o.MostRows || n > alwaysEnter && n*100 > d.o.MostPercent*mapping.Len() {
		alarm = fmt.Sprintf("The directory has %d mailboxes and addresses more of agency %s than the table, which is more than enters by itself (identity.additions), so none did. Look why; what is right enters by a list: mailcutover list generate --agency %s. Such as: %s.", n, id, id, some(a.names()))
		a.Rows, a.Fixed = nil, nil
	}
	var changes []string
	a.Members, changes = membership(source, state, id, d.now())
	if len(changes) > 0 {
		d.o.Alarms.Raise(memberAlarm+string(id), fmt.Sprintf("Who may use functional mailboxes of agency %s has changed: %s. Clear the alarm when you have looked.", id, some(changes)))
	}
	if len(a.Rows)+len(a.Fixed)+len(a.Members) == 0 {
		return alarm
	}
	a.Reason = fmt.Sprintf("%s, read at %s: %s", source.Snapshot.Directory, source.Facts.At.UTC().Format(time.RFC3339), some(append(a.names(), changes...)))
	left, err := d.o.Enter(ctx, a)
	switch {
	case err != nil && ctx.Err() != nil: // the node stops
	case err != nil:
		return fmt.Sprintf("What the directory has more of agency %s can't enter the table: %v", id, err)
	case len(left) > 0:
		return fmt.Sprintf("The directory has %d mailboxes and addresses more of agency %s that don't fit the table: %s.", len(left), id, some(left))
	}
	return alarm
}

// names are what enters, for people.
func (a *Addition) names() []string {
	var out []string
	for i := range a.Rows {
		out = append(out, string(a.Rows[i].Addresses[0]))
	}
	for i := range a.Fixed {
		out = append(out, string(a.Fixed[i].Address))
	}
	return out
}

// unshared leaves out rows of which another one has a name too: the directory is in disorder,
// and which of them is right people say, by a list.
func unshared(rows []routing.Row) []routing.Row {
	owner := make(map[string]routing.MailboxID)
	shared := make(map[routing.MailboxID]bool)
	for i := range rows {
		for _, key := range rows[i].Keys() {
			if other, ok := owner[key]; ok && other != rows[i].Mailbox {
				shared[other], shared[rows[i].Mailbox] = true, true
			}
			owner[key] = rows[i].Mailbox
		}
	}
	return slices.DeleteFunc(rows, func(r routing.Row) bool { return shared[r.Mailbox] })
}

// fixed are addresses of an agency's groups and the like that nobody has in the table.
func (d *Desk) fixed(source *watch.View, state *routing.State, id routing.AgencyID) []routing.Fixed {
	var out []routing.Fixed
	seen := make(map[routing.Address]bool)
	known := make(map[routing.Address]bool)
	for f := range state.FixedAddresses() {
		known[f.Address] = true
	}
	for _, o := range source.Objects(id) {
		if o.Kind.Mailbox() {
			continue
		}
		for _, f := range d.o.Model.Fixed(o) {
			if !seen[f.Address] && !known[f.Address] && len(state.Claims(string(f.Address))) == 0 && !source.Facts.Shared(f.Address) {
				seen[f.Address] = true
				out = append(out, f)
			}
		}
	}
	return out
}
