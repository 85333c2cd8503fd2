package desk

import (
	"context"
	"fmt"
	"time"

	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

var _ operation.Checker = (*Desk)(nil)

// Open returns, in words, why an agency's way back can't be ended: findings that nobody has
// seen to, a comparison under way, or none that is young enough. Nothing is said of an agency
// whose mailboxes can't be read: what can't be compared isn't waited for.
func (d *Desk) Open(id routing.AgencyID) []string {
	s := d.o.Replica.State()
	set := d.o.Settings()
	a, ok := s.Agency(id)
	if !ok || set.Mailboxes(a.Source) == nil || set.Mailboxes(a.Target) == nil {
		return nil
	}
	var all []string
	r, err := RecordOf(s, id)
	if err != nil {
		return []string{err.Error()}
	}
	found, err := Findings(s, id)
	if err != nil {
		return []string{err.Error()}
	}
	if n := Count(found); n.Open() > 0 {
		all = append(all, fmt.Sprintf("%d findings about mailboxes are open: mailcutover verify findings --agency %s", n.Open(), id))
	}
	if r.Left > 0 {
		all = append(all, fmt.Sprintf("%d findings about mailboxes were too many to be listed: see to those that are, then mailcutover verify --agency %s --full --reason ...", r.Left, id))
	}
	switch {
	case r.Running != nil:
		all = append(all, fmt.Sprintf("mailboxes are being compared by node %s since %s", r.Running.Node, r.Running.Began.Format(time.RFC3339)))
	case d.old(&r, set) != "":
		all = append(all, d.old(&r, set)+": mailcutover verify --agency "+string(id)+" --reason ...")
	case r.Last.Operation != d.o.Cutover(s, id):
		// What was compared before says nothing of what the mover, and a switch, did since.
		all = append(all, fmt.Sprintf("mailboxes were last compared at %s, before the last cutover: mailcutover verify --agency %s --reason ...", r.Last.Ended.Format(time.RFC3339), id))
	}
	return all
}

// old says that there is no comparison that still says something; empty: there is one.
func (d *Desk) old(r *Record, set Settings) string {
	switch age := set.MaxAge; {
	case r.Last == nil:
		return "mailboxes were never compared"
	case r.Last.Compared == 0 && r.Last.Failed > 0:
		return fmt.Sprintf("none of %d mailboxes could be read at %s", r.Last.Failed, r.Last.Ended.Format(time.RFC3339))
	case age > 0 && d.o.Now().Sub(r.Last.Ended) > age:
		return fmt.Sprintf("mailboxes were last compared at %s, longer ago than %s", r.Last.Ended.Format(time.RFC3339), age)
	}
	return ""
}

// Check implements operation.Checker: open crossed mailboxes refuse a cutover. That none was
// found lately only informs, and before a rollback everything does.
func (d *Desk) Check(_ context.Context, p *operation.Plan) []operation.Check {
	if p.Kind == operation.Remap {
		return nil
	}
	s := d.o.Replica.State()
	set := d.o.Settings()
	var all []operation.Check
	for i := range p.Agencies {
		a, ok := s.Agency(p.Agencies[i].ID)
		if !ok {
			continue
		}
		one := d.check(s, &a, set)
		one.Informs = one.Informs || p.Kind == operation.Rollback
		all = append(all, one)
	}
	return all
}

// check says how an agency's mailboxes stand.
func (d *Desk) check(s *routing.State, a *routing.Agency, set Settings) operation.Check {
	const name = "mailboxes"
	inform := func(format string, args ...any) operation.Check {
		return operation.Check{Name: name, Informs: true, Text: fmt.Sprintf("agency %s: ", a.ID) + fmt.Sprintf(format, args...)}
	}
	if set.Mailboxes(a.Source) == nil || set.Mailboxes(a.Target) == nil {
		return inform("its mailboxes can't be read (platforms.mailboxes isn't set): nothing was compared")
	}
	r, err := RecordOf(s, a.ID)
	if err != nil {
		return operation.Failed(name, err)
	}
	found, err := Findings(s, a.ID)
	if err != nil {
		return operation.Failed(name, err)
	}
	if n := Count(found); n.Alarms() > 0 {
		return operation.Failed(name, fmt.Errorf("agency %s: %d findings say that mailboxes hold others' content: mailcutover verify findings --agency %[1]s", a.ID, n.Alarms()))
	}
	if text := d.old(&r, set); text != "" {
		return inform("%s: mailcutover verify --agency %s --reason ...", text, a.ID)
	}
	return operation.Passed(name, fmt.Sprintf("agency %s: %d of %d mailboxes were compared at %s, and none is crossed", a.ID, r.Last.Compared, r.Last.Mailboxes, r.Last.Ended.Format(time.RFC3339)))
}
