package demo

import (
	"context"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"mailcutover/mailboxlist"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/rehearse"
	"mailcutover/routing"
)

// Shape is what a rehearsal takes over of a mailbox: nobody's name.
type Shape struct {
	Kind      string // as in a list
	Addresses int    // that it has, the primary one included
	Logins    int    // besides
}

// RehearseOptions say what is rehearsed.
type RehearseOptions struct {
	Agency  routing.AgencyID
	Mapping routing.Digest // whose shape it is
	Shape   []Shape        // of the mailboxes that take part; at least one
	Of      int            // mailboxes that the agency has
	Version string         // of this program

	Out, Log io.Writer // as of Options
	Break    Break
	Rate     int
	Phase    time.Duration
}

// longestRehearsal is how long one may take besides the time in which mail only flows.
const longestRehearsal = 5 * time.Minute

var errTooLong = errors.New("it takes too long: a switch, or mail that is never taken, keeps it")

// bystanders is how many mailboxes another agency has that nothing may happen to.
const bystanders = 20

// Rehearse cuts an agency of this shape over and back between two built-in platforms, under mail and
// logins, and counts. It touches nothing but this machine's loopback interface and a directory
// of its own. The record says whether it passed; an error, that it couldn't be rehearsed.
func Rehearse(ctx context.Context, o RehearseOptions) (r rehearse.Record, err error) {
	if len(o.Shape) == 0 {
		return r, fmt.Errorf("rehearse agency %s: it has no mailboxes", o.Agency)
	}
	r = rehearse.Record{
		ID: uuid.NewString(), Agency: o.Agency, Began: time.Now().UTC(), Version: o.Version, Mapping: o.Mapping, Mailboxes: len(o.Shape), Of: o.Of,
	}
	defaults := Options{Out: o.Out, Log: o.Log, Break: o.Break, Rate: o.Rate, Phase: o.Phase}
	if defaults.Rate == 0 {
		defaults.Rate = 300
	}
	if defaults.Phase == 0 {
		defaults.Phase = 3 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 3*defaults.Phase+longestRehearsal, errTooLong)
	defer cancel()
	rows := cast(o.Shape)
	s, err := raise(ctx, defaults, traffic(rows))
	if err != nil {
		return r, fmt.Errorf("rehearse agency %s: %w", o.Agency, err)
	}
	defer s.close()
	s.say("Two platforms and a node are up on loopback; %d mailboxes stand for those of agency %s, %d for others.", len(o.Shape), o.Agency, bystanders)
	var list strings.Builder
	if err := writeRows(&list, rows); err != nil {
		return r, fmt.Errorf("rehearse agency %s: write the list: %w", o.Agency, err)
	}
	if err := s.load(ctx, strings.NewReader(list.String())); err != nil {
		return r, fmt.Errorf("rehearse agency %s: %w", o.Agency, err)
	}
	troubles, err := s.rehearse(ctx)
	if err != nil {
		return r, fmt.Errorf("rehearse agency %s: %w", o.Agency, err)
	}
	s.count(&r, troubles)
	r.Ended = time.Now().UTC()
	r.Passed = r.Kept()
	return r, nil
}

// rehearse switches the agency there and back under traffic. What didn't succeed is in troubles; an
// error is about the rehearsal itself.
func (s *stage) rehearse(ctx context.Context) (troubles []string, err error) {
	stop := make(chan struct{})
	var mail sync.WaitGroup
	mail.Go(func() { s.flow(ctx, stop) })
	err = s.act(ctx)
	close(stop)
	mail.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("it ended early: %w", context.Cause(ctx))
	}
	if err != nil {
		troubles = append(troubles, err.Error())
	}
	if err := s.drained(ctx); err != nil {
		return nil, err
	}
	if left := s.node.Spool().Messages; left > 0 {
		troubles = append(troubles, fmt.Sprintf("the spool still has %d messages after %s", left, drainTime))
	}
	return troubles, nil
}

// count fills in what the rehearsal came to.
func (s *stage) count(r *rehearse.Record, troubles []string) {
	for _, m := range s.measured {
		if m.kind == operation.Cutover {
			r.Cutover = m.Switch
		} else {
			r.Rollback = m.Switch
		}
	}
	var stored []delivery
	for _, p := range s.platforms {
		stored = append(stored, p.deliveries()...)
	}
	byAgency, examples := compare(s.all, s.mx.taken, stored, s.switches)
	own := byAgency[moved]
	r.Mail = rehearse.Mail{Sent: own.sent, Right: own.right, Wrong: own.wrong, Lost: own.lost, Duplicates: own.duplicates, Refused: len(s.mx.refused)}
	for id, other := range byAgency {
		if id != moved && other.broken() {
			troubles = append(troubles, fmt.Sprintf("of the other agencies' mail %d of %d is right", other.right, other.sent))
		}
	}
	s.readers.mu.Lock()
	right, wrong := compareLogins(s.readers.logins, s.switches)
	r.Logins = rehearse.Logins{Right: right, Wrong: len(wrong), Refused: len(s.readers.refused), PutOff: s.readers.putOff, Moved: s.readers.sent}
	troubles = append(troubles, append(s.readers.refused, wrong...)...)
	s.readers.mu.Unlock()
	troubles = append(append(troubles, s.mx.refused...), examples...)
	if n := len(troubles); n > rehearse.MaxProblems {
		troubles = append(troubles[:rehearse.MaxProblems-1], fmt.Sprintf("and %d more", n-rehearse.MaxProblems+1))
	}
	r.Problems = troubles
}

// actor is a mailbox of a rehearsal with all of its names.
type actor struct {
	mailbox
	kind      string
	addresses []string // the primary one first
	logins    []string
}

// cast invents names for a shape, and the bystanders.
func cast(shape []Shape) []actor {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	var all []actor
	add := func(agency, domain, name string, s Shape) {
		a := actor{mailbox: mailbox{agency: agency}, kind: s.Kind}
		binary.BigEndian.PutUint64(a.id[:8], random.Uint64())
		binary.BigEndian.PutUint64(a.id[8:], random.Uint64())
		for i := range max(s.Addresses, 1) {
			a.addresses = append(a.addresses, fmt.Sprintf("%s-%d@%s", name, i, domain))
		}
		for i := range s.Logins {
			a.logins = append(a.logins, fmt.Sprintf("%s-login-%d", name, i))
		}
		a.at = map[string]string{source: a.addresses[0], target: fmt.Sprintf("%s@ox.%s", a.id, domain)}
		a.address = a.addresses[random.IntN(len(a.addresses))] // what the world writes to
		all = append(all, a)
	}
	for _, g := range agencies {
		switch g.id {
		case moved:
			for i, one := range shape {
				add(g.id, g.domain, fmt.Sprintf("m%d", i), one)
			}
		case agencies[0].id:
			for i := range bystanders {
				add(g.id, g.domain, fmt.Sprintf("b%d", i), Shape{Kind: "user"})
			}
		}
	}
	return all
}

// traffic are the mailboxes as senders and mail programs know them.
func traffic(rows []actor) []mailbox {
	all := make([]mailbox, len(rows))
	for i := range rows {
		all[i] = rows[i].mailbox
	}
	return all
}

// writeRows writes a list for `mailbox import` with all names.
func writeRows(w io.Writer, all []actor) error {
	out := csv.NewWriter(w)
	columns := mailboxlist.Columns()
	if err := out.Write(columns); err != nil {
		return err
	}
	for _, a := range all {
		cells := map[string]string{
			"address": a.addresses[0], "directory_id": a.id.String(), "agency": a.agency, "kind": a.kind,
			"aliases": strings.Join(a.addresses[1:], " "), "logins": strings.Join(a.logins, " "),
			"source_address": a.at[source], "source_login": a.at[source], "target_address": a.at[target], "target_login": a.at[target],
		}
		row := make([]string, len(columns))
		for i, name := range columns {
			row[i] = cells[name]
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// ErrNotPassed says that a rehearsal didn't keep every promise.
var ErrNotPassed = errors.New("the rehearsal did not pass")
