package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// Forwarding is a directory that shows where its platform forwards the mail of mailboxes;
// *ldapdir.Client is one.
type Forwarding interface {
	directory.Directory

	// ShowsForwards reports whether it does: one may have no attribute for that.
	ShowsForwards() bool

	// FindIDs asks for many objects now; those that it doesn't have are missing. An error means
	// that nothing is known.
	FindIDs(ctx context.Context, ids []routing.MailboxID) ([]directory.Object, error)
}

// ErrUnread is wrapped by errors about forwards that nothing reads back, or whose goal isn't
// known: waiting doesn't help.
var ErrUnread = errors.New("forwards can't be read back")

// ErrForwards is wrapped by the error about mailboxes whose forwards are not as wanted.
var ErrForwards = errors.New("forwards are not as wanted")

// ForwardQuery asks how mailboxes are forwarded on a platform.
type ForwardQuery struct {
	Agency   routing.AgencyID
	Platform routing.PlatformID // the agency's source or target

	// On: each mailbox's mail has to go to its coexistence address, and nowhere else. Else none
	// may go to the mailbox by another of its names; other forwards are not ours.
	On bool
}

// ForwardFault is what is wrong with a mailbox's forward.
type ForwardFault string

const (
	ForwardMissing   ForwardFault = "missing"   // there is none
	ForwardElsewhere ForwardFault = "elsewhere" // it goes elsewhere, or elsewhere as well
	ForwardCopies    ForwardFault = "copies"    // it goes where it should, and the platform delivers as well
	ForwardLeft      ForwardFault = "left"      // it is still there, though it should be off
	ForwardNowhere   ForwardFault = "nowhere"   // the table has no address for it to go to
	ForwardUnknown   ForwardFault = "unknown"   // the directory doesn't have the mailbox, or has it twice
)

// Forward is a mailbox whose forward is not as wanted.
type Forward struct {
	Mailbox routing.MailboxID
	Address routing.Address   // the primary one, as the table has it
	Want    []routing.Address // one of them is where it should go; empty: nowhere
	To      []string          // where it goes, as the directory says
	Copies  bool              // and the platform delivers as well
	Fault   ForwardFault
}

// Forwards are what a directory says of an agency's forwards.
type Forwards struct {
	ForwardQuery
	Directory string
	Asked     time.Time
	Mailboxes int       // that were looked at
	Wrong     []Forward // in the order of the table
}

// Err returns nil if all are right, else an error that wraps ErrForwards and names the first by
// their directory ids: it may be logged.
func (f *Forwards) Err() error {
	if len(f.Wrong) == 0 {
		return nil
	}
	const most = 5
	var named []string
	for i := range f.Wrong[:min(most, len(f.Wrong))] {
		named = append(named, fmt.Sprintf("%s (%s)", f.Wrong[i].Mailbox, f.Wrong[i].Fault))
	}
	if more := len(f.Wrong) - most; more > 0 {
		named = append(named, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w: %d of %d mailboxes of agency %s on platform %s, by directory %s: %s; mailcutover directory forwards --agency %s says how they are",
		ErrForwards, len(f.Wrong), f.Mailboxes, f.Agency, f.Platform, f.Directory, strings.Join(named, ", "), f.Agency)
}

// SayForward returns a forward that isn't as wanted in words.
func SayForward(f *Forward) string {
	switch f.Fault {
	case ForwardMissing:
		return fmt.Sprintf("%s: it isn't forwarded, want %s", f.Address, wanted(f.Want))
	case ForwardElsewhere:
		return fmt.Sprintf("%s: it is forwarded to %s, want %s alone", f.Address, strings.Join(f.To, ", "), wanted(f.Want))
	case ForwardCopies:
		return fmt.Sprintf("%s: it is forwarded to %s, and delivered here as well", f.Address, strings.Join(f.To, ", "))
	case ForwardLeft:
		return fmt.Sprintf("%s: it is still forwarded to %s", f.Address, strings.Join(f.To, ", "))
	case ForwardNowhere:
		return fmt.Sprintf("%s: the table has no coexistence address of it that a forward could go to", f.Address)
	case ForwardUnknown:
		return fmt.Sprintf("%s: the directory doesn't have mailbox %s once", f.Address, f.Mailbox)
	}
	return string(f.Address) + ": " + string(f.Fault)
}

func wanted(all []routing.Address) string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = string(a)
	}
	return strings.Join(texts, " or ")
}

// forwardsOf returns the directory that shows the forwards of an agency on a platform, by the
// settings and the agency's record alone.
func (d *Desk) forwardsOf(q *ForwardQuery) (dir Forwarding, a routing.Agency, err error) {
	a, ok := d.o.State().Agency(q.Agency)
	if !ok {
		return nil, a, fmt.Errorf("forwards of agency %s: %w: the table doesn't have it", q.Agency, ErrUnread)
	}
	role, plain := "source", d.o.Source
	switch q.Platform {
	case a.Source:
	case a.Target:
		role, plain = "target", d.o.Target
	default:
		return nil, a, fmt.Errorf("forwards of agency %s: %w: it is not on platform %s", q.Agency, ErrUnread, q.Platform)
	}
	dir, ok = plain.(Forwarding)
	switch {
	case plain == nil || !ok:
		return nil, a, fmt.Errorf("forwards of agency %s on platform %s: %w: there is no directory with the role %s", q.Agency, q.Platform, ErrUnread, role)
	case !dir.ShowsForwards():
		return nil, a, fmt.Errorf("forwards of agency %s on platform %s: %w: no attribute of directory %s shows them", q.Agency, q.Platform, ErrUnread, dir.Name())
	case !d.o.Model.Coexists(a.ID):
		return nil, a, fmt.Errorf("forwards of agency %s: %w: identity.coexistence has no pattern for it, so nobody knows where they should go", q.Agency, ErrUnread)
	}
	return dir, a, nil
}

// goals returns the addresses to one of which a forward of a mailbox has to go: its coexistence
// addresses, as far as the table knows them.
func (d *Desk) goals(agency routing.AgencyID, row *routing.Row) (goals []routing.Address) {
	object := directory.Object{}
	if source, _ := d.watch.Views(); source != nil {
		if o, _, ok := source.Mailbox(row.Mailbox); ok {
			object = *o
		}
	}
	// The primary address may be another one by now, in the directory or in the table: then the
	// coexistence address is still that of an address which the mailbox has.
	for _, primary := range row.Addresses {
		object.Addresses = []routing.Address{primary}
		all, err := d.o.Model.Coexistence(&object, agency)
		if err != nil {
			continue // the patterns want what this object lacks
		}
		for _, goal := range all {
			if goal != primary && goal != row.Addresses[0] && slices.Contains(row.Addresses, goal) && !slices.Contains(goals, goal) {
				goals = append(goals, goal)
			}
		}
	}
	return goals
}

// ForwardGoals returns where the platform that an agency isn't on has to forward the mail of its
// mailboxes, for those of which that is known.
func (d *Desk) ForwardGoals(agency routing.AgencyID) map[routing.MailboxID]routing.Address {
	m := d.o.State().Mapping(agency)
	if m == nil || !d.o.Model.Coexists(agency) {
		return nil
	}
	out := make(map[routing.MailboxID]routing.Address, m.Len())
	for row := range m.Rows() {
		if goals := d.goals(agency, &row); len(goals) > 0 {
			out[row.Mailbox] = goals[0]
		}
	}
	return out
}

// Forwards asks the platform's directory now how an agency's mailboxes are forwarded. The error is
// not about forwards that are wrong.
func (d *Desk) Forwards(ctx context.Context, q ForwardQuery) (Forwards, error) {
	return d.forwards(ctx, q, nil)
}

// ForwardSides returns how an agency's forwards should be on its platforms now: off where its
// mailboxes are, and on at the other one, if a hook sets them there.
func (d *Desk) ForwardSides(agency routing.AgencyID) (sides []ForwardQuery, err error) {
	a, ok := d.o.State().Agency(agency)
	if !ok {
		return nil, fmt.Errorf("forwards of agency %s: the table doesn't have it", agency)
	}
	for _, platform := range []routing.PlatformID{a.Source, a.Target} {
		q := ForwardQuery{Agency: agency, Platform: platform, On: platform != a.Platform()}
		if !q.On || d.o.Forwarded != nil && d.o.Forwarded(platform) {
			sides = append(sides, q)
		}
	}
	return sides, nil
}

// AwaitForwards asks until all forwards are as wanted, for patience at most, since what was written
// at one server of a directory comes to the others later. The error wraps ErrForwards if some are
// wrong in the end; what came before the last question says nothing.
func (d *Desk) AwaitForwards(ctx context.Context, q ForwardQuery, patience time.Duration) (Forwards, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience+askForwards, fmt.Errorf("the directory hasn't answered within %s", patience+askForwards))
	defer cancel()
	end := d.now().Add(patience)
	all, only := Forwards{ForwardQuery: q}, map[routing.MailboxID]bool(nil)
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		found, err := d.forwards(ctx, q, only)
		if err == nil {
			if only == nil {
				all = found
			}
			all.Asked, all.Wrong = found.Asked, found.Wrong
			if err = all.Err(); err == nil {
				return all, nil
			}
			only = make(map[routing.MailboxID]bool, len(all.Wrong))
			for i := range all.Wrong {
				only[all.Wrong[i].Mailbox] = true
			}
		}
		if errors.Is(err, ErrUnread) || ctx.Err() != nil || !d.now().Add(pause).Before(end) {
			return all, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return all, errors.Join(context.Cause(ctx), err)
		}
	}
}

// askForwards is how long the last question may take beyond the patience of whoever asks.
const askForwards = 30 * time.Second

// forwards asks once; only: for these mailboxes, nil: for all.
func (d *Desk) forwards(ctx context.Context, q ForwardQuery, only map[routing.MailboxID]bool) (Forwards, error) {
	out := Forwards{ForwardQuery: q, Asked: d.now()}
	dir, a, err := d.forwardsOf(&q)
	if err != nil {
		return out, err
	}
	out.Directory = dir.Name()
	m := d.o.State().Mapping(q.Agency)
	if m == nil {
		return out, fmt.Errorf("forwards of agency %s: its mailboxes are not on this node", q.Agency)
	}
	ids := make([]routing.MailboxID, 0, m.Len())
	for row := range m.Rows() {
		if only == nil || only[row.Mailbox] {
			ids = append(ids, row.Mailbox)
		}
	}
	objects, err := dir.FindIDs(ctx, ids)
	if err != nil {
		return out, fmt.Errorf("forwards of agency %s on platform %s: %w", q.Agency, q.Platform, err)
	}
	byID := make(map[routing.MailboxID][]*directory.Object, len(objects))
	for i := range objects {
		byID[objects[i].ID] = append(byID[objects[i].ID], &objects[i])
	}
	look := resolver{dir: dir, known: make(map[string][]string)}
	onTarget := q.Platform == a.Target
	for row := range m.Rows() {
		if only != nil && !only[row.Mailbox] {
			continue
		}
		out.Mailboxes++
		one := Forward{Mailbox: row.Mailbox, Address: row.Addresses[0]}
		found := byID[row.Mailbox]
		if len(found) != 1 {
			if q.On || len(found) > 1 {
				one.Fault = ForwardUnknown
				out.Wrong = append(out.Wrong, one)
			}
			continue // what isn't there forwards nothing
		}
		ways, err := look.ways(ctx, found[0])
		if err != nil {
			return out, fmt.Errorf("forwards of agency %s on platform %s: %w", q.Agency, q.Platform, err)
		}
		one.Copies = found[0].Redirect && (found[0].Forward != "" || len(found[0].Forwards) > 0) // a targetAddress leaves none
		for _, w := range ways {
			one.To = append(one.To, w[0])
		}
		if q.On {
			one.Want = d.goals(a.ID, &row)
			one.Fault = faultOn(&one, ways, &row, onTarget)
		} else if leadsBack(ways, &row, onTarget) {
			one.Fault = ForwardLeft
		}
		if one.Fault != "" {
			out.Wrong = append(out.Wrong, one)
		}
	}
	return out, nil
}

// faultOn says what is wrong with a forward that should be on; empty: nothing.
func faultOn(f *Forward, ways [][]string, row *routing.Row, onTarget bool) ForwardFault {
	here := []string{string(row.At(onTarget).Address), string(row.Addresses[0])}
	right, other := 0, 0
	for _, way := range ways {
		switch {
		case slices.ContainsFunc(f.Want, func(a routing.Address) bool { return slices.Contains(way, string(a)) }):
			right++
		case slices.ContainsFunc(way, func(s string) bool { return slices.Contains(here, s) }):
			f.Copies = true // a forward to the mailbox itself keeps a copy (Univention)
		default:
			other++
		}
	}
	switch {
	case len(f.Want) == 0:
		return ForwardNowhere
	case other > 0:
		return ForwardElsewhere
	case right == 0:
		return ForwardMissing
	case f.Copies:
		return ForwardCopies
	}
	return ""
}

// leadsBack reports whether a forward goes to the mailbox itself by another of its names, so that
// mail would go round.
func leadsBack(ways [][]string, row *routing.Row, onTarget bool) bool {
	here, there := row.At(onTarget).Address, row.At(!onTarget).Address
	for _, way := range ways {
		for _, s := range way {
			a := routing.Address(s)
			if a == here {
				break // a copy for itself, by the name that this platform delivers to
			}
			if a == there || slices.Contains(row.Addresses, a) {
				return true
			}
		}
	}
	return false
}

// resolver says where forwards go. It asks for each recipient once.
type resolver struct {
	dir   Forwarding
	known map[string][]string
}

// ways returns for each forward of an object the addresses that it goes to: one, or those of the
// recipient that it names.
func (r *resolver) ways(ctx context.Context, o *directory.Object) (out [][]string, err error) {
	if o.Forward != "" {
		way, err := r.recipient(ctx, o.Forward)
		if err != nil {
			return nil, err
		}
		out = append(out, way)
	}
	for _, s := range append(slices.Clone(o.Forwards), o.Target) {
		if s != "" {
			out = append(out, []string{canonical(s)})
		}
	}
	return out, nil
}

// recipient returns the addresses of what a forward names: an address, or an object by its DN, whose
// mail goes to its targetAddress, if it has one, and not to its own addresses.
func (r *resolver) recipient(ctx context.Context, name string) ([]string, error) {
	if strings.Contains(name, "@") && !strings.Contains(name, "=") {
		return []string{canonical(name)}, nil
	}
	key := strings.ToLower(name)
	if way, ok := r.known[key]; ok {
		return way, nil
	}
	found, err := r.dir.Find(ctx, directory.Query{DN: name})
	if err != nil {
		return nil, err
	}
	way := []string{name} // nobody: it leads nowhere that is known
	if len(found) == 1 {
		switch o := &found[0]; {
		case o.Target != "":
			way = []string{canonical(o.Target)}
		case len(o.Addresses) > 0:
			way = nil
			for _, a := range o.Addresses {
				way = append(way, string(a))
			}
		}
	}
	r.known[key] = way
	return way, nil
}

// canonical returns an address in the form of the table, or what it is if it is none.
func canonical(s string) string {
	if a, err := routing.ParseAddress(s); err == nil {
		return string(a)
	}
	return s
}
