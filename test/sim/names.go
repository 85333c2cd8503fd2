package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
	"mailcutover/spool"
)

// elsewhere is a directory that has nobody: whom the table doesn't know is denied for good.
type elsewhere struct{}

// Absent implements transfer.Names.
func (elsewhere) Absent(context.Context, routing.Address) error { return nil }

// Encapsulated implements transfer.Names.
func (elsewhere) Encapsulated(routing.Address) (routing.Address, bool) { return "", false }

// newcomer is a mailbox that people enter while the run goes on.
type newcomer struct {
	address string
	told    bool // as entered; from then on it gets mail
}

// number is the n-th agency's.
func (r *Run) number(ag *agency) int {
	for n, a := range r.agencies {
		if a == ag {
			return n
		}
	}
	return -1
}

// hires enters another mailbox at a node; once that is told, it gets mail. mu is held.
func (r *Run) hires(m *machine, ag *agency) *newcomer {
	c := &newcomer{address: fmt.Sprintf("new%d@%s.example", len(ag.newcomers), ag.id)}
	ag.newcomers = append(ag.newcomers, c)
	l := m.life
	if l == nil || l.control == nil {
		return c
	}
	r.ops++
	r.note("%s is entered at %s", c.address, m.name)
	m.ends.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		defer cancel()
		err := r.enter(ctx, l, ag, c)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ops--
		r.note("%s is entered at %s: %v", c.address, m.name, err)
		if err == nil && !l.host.dead {
			c.told = true
			r.done["name entered"]++
		}
	})
	return c
}

// missing returns the newcomers of an agency that were told as entered and that the table
// hasn't.
func (ag *agency) missing(s *routing.State) (all []*newcomer) {
	for _, c := range ag.newcomers {
		if d := s.DecideAddress(routing.Address(c.address), ""); c.told && d.Agency != ag.id {
			all = append(all, c)
		}
	}
	return all
}

// enter adds a mailbox to its agency's list in force, on the platforms as the others of it.
func (r *Run) enter(ctx context.Context, l *life, ag *agency, c *newcomer) error {
	for try := 0; ; try++ {
		state := l.replica.State()
		rec, _ := state.Agency(ag.id)
		mapping := state.Mapping(ag.id)
		if mapping == nil || rec.Operation != "" {
			return errors.New("the mapping isn't there, or an operation has the agency")
		}
		r.mu.Lock()
		r.acts++
		change := table.Change{
			ID: fmt.Sprintf("enter-%d", r.acts), Incarnation: state.Position().Incarnation, Term: state.Position().Term, Mapped: state.Position().Mapped,
			Who: "anna", What: "enter " + c.address, Reason: "sim",
		}
		n, version := r.number(ag), 0
		var rows []routing.Row
		there := false
		for row := range mapping.Rows() {
			rows = append(rows, row)
			there = there || string(row.Addresses[0]) == c.address
			if _, _, v := r.canonical(string(row.Target.Address)); v > version {
				version = v
			}
		}
		box := mailbox(n, 0x40+len(ag.newcomers))
		for i, other := range ag.newcomers {
			if other == c {
				box = mailbox(n, 0x40+i)
			}
		}
		r.boxes[(&spool.Recipient{Address: routing.Address(c.address), Agency: ag.id, Mailbox: box}).Key()] = c.address
		r.mu.Unlock()
		if there {
			return nil
		}
		next, err := routing.NewMapping(ag.id, append(rows, routing.Row{
			Mailbox: box, Kind: routing.KindUser, Addresses: []routing.Address{routing.Address(c.address)},
			Target: routing.Place{Address: routing.Address(ag.place(c.address, ag.target, version))},
		}))
		if err == nil {
			err = errors.Join(state.CheckMapping(next)...)
		}
		if err != nil {
			return err
		}
		if err := l.table.PutMapping(ctx, next); err != nil {
			return err
		}
		rec.Mapping = next.Digest()
		change.Agencies = []routing.Agency{rec}
		pos, err := l.table.Change(ctx, change)
		if (errors.Is(err, table.ErrStale) || errors.Is(err, table.ErrTerm)) && try < 5 {
			if pos, err = l.table.Position(ctx); err == nil {
				err = l.replica.Wait(ctx, pos)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err == nil {
			err = l.table.Confirm(ctx)
		}
		if err == nil {
			err = l.replica.Wait(ctx, pos)
		}
		return err
	}
}

// list is how an agency's mailboxes are known on its target, but for those that came later:
// these change nobody's answer. mu is held.
func (r *Run) list(s *routing.State, id routing.AgencyID) (text string) {
	m := s.Mapping(id)
	if m == nil {
		return ""
	}
	for row := range m.Rows() {
		if a := string(row.Addresses[0]); !strings.HasPrefix(a, "new") {
			text += " " + a + "=" + string(row.Target.Address)
		}
	}
	return text
}

// moved is the list in force with other addresses on the target, of a version.
func (r *Run) moved(s *routing.State, ag *agency, version int) (*routing.Mapping, error) {
	m := s.Mapping(ag.id)
	if m == nil {
		return nil, errors.New("the mapping isn't there")
	}
	var rows []routing.Row
	for row := range m.Rows() {
		row.Target = routing.Place{Address: routing.Address(ag.place(string(row.Addresses[0]), ag.target, version))}
		rows = append(rows, row)
	}
	return routing.NewMapping(ag.id, rows)
}
