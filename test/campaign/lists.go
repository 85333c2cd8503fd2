package campaign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/test/cluster"
)

// newcomers is how many people may be entered in an agency in one round.
const newcomers = 3

// newcomerPause is between two attempts to send to somebody whom no node knows yet.
const newcomerPause = 300 * time.Millisecond

// Settle brings the first lists of agencies into force, and has those but the first called complete.
func (s *Storm) Settle(ctx context.Context, agencies ...string) error {
	ctx, cancel := context.WithTimeout(ctx, comeToRest)
	defer cancel()
	for i, id := range agencies {
		h := Holding{Address: shared(id), Mailbox: cluster.Mailbox(id, 1), Asked: time.Now()}
		if err := s.bring(ctx, id, h.Address, h.Mailbox); err != nil {
			return err
		}
		h.Told = time.Now()
		s.roster.Holdings = append(s.roster.Holdings, h)
		for _, n := range s.c.Nodes {
			if !s.until(ctx, func() bool { r, err := n.API.Route(ctx, "address", h.Address); return err == nil && r.Deliver }) {
				return fmt.Errorf("%s doesn't know %s", n.Name, h.Address)
			}
		}
		if i == 0 {
			continue
		}
		s.roster.Complete[id+".example"] = time.Now()
		if err := s.insist(ctx, func(ctx context.Context) error {
			_, err := s.c.Nodes[0].Agree(ctx, admin.NewProposal{Kind: "complete-domain", Domain: id + ".example", Reason: "campaign"})
			return err
		}); err != nil {
			return fmt.Errorf("call %s.example complete: %w", id, err)
		}
	}
	return nil
}

// enter has somebody entered in the directory, and brings a list that names the new mailbox into
// force. Senders have its address already.
func (s *Storm) enter(ctx context.Context, agency string) error {
	s.mu.Lock()
	s.entered[agency]++
	i := mailboxes + s.entered[agency]
	s.mu.Unlock()
	if i > mailboxes+newcomers {
		return s.change(ctx, agency, "switch")
	}
	address := cluster.Mailbox(agency, i)
	first := s.draw(len(s.c.Nodes))
	one, other := s.c.Nodes[first], s.c.Nodes[(first+1)%len(s.c.Nodes)]
	load := s.c.Send(context.WithoutCancel(ctx), // they send on when the storm is over
		cluster.Senders{Node: one.Index, Addr: one.SMTP, Rcpts: []string{address}, Pace: s.pace, Again: newcomerPause, Named: true},
		cluster.Senders{Node: other.Index, Addr: other.LMTP, LMTP: true, Rcpts: []string{address}, Pace: s.pace, Again: newcomerPause, Named: true})
	wait(ctx, time.Second+s.upTo(4*time.Second))
	e := Entry{Address: address, Began: time.Now()}
	if err := s.insist(ctx, func(ctx context.Context) error { return s.dir.Enter(ctx, agency, i) }); err != nil {
		return fmt.Errorf("enter %s: %w", address, err)
	}
	e.Ended = time.Now()
	wait(ctx, s.upTo(6*time.Second)) // what was denied just now must not be denied any more
	if err := s.bring(ctx, agency, address, address); err != nil {
		return err
	}
	e.Listed = time.Now()
	s.tally.Add("people", "new mailboxes, entered and listed", 1)
	s.log("%s was entered at %s and listed at %s", address, e.Began.Format(clock), e.Listed.Format(clock))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roster.Entries = append(s.roster.Entries, e)
	s.there[agency] = append(s.there[agency], newcomer{i, len(s.roster.Entries) - 1, load})
	return nil
}

// newcomer is somebody whom a list in force names.
type newcomer struct {
	box   int // number of the mailbox
	entry int // in the roster
	load  *cluster.Load
}

// leave takes somebody out of the directory who was entered, and has the mailbox retired. Mail that
// was taken for it has arrived by then: what is held for a retired mailbox stays in the spool.
func (s *Storm) leave(ctx context.Context, agency string) error {
	s.mu.Lock()
	all := s.there[agency]
	if len(all) == 0 {
		s.mu.Unlock()
		return s.enter(ctx, agency)
	}
	who := all[0]
	s.there[agency] = all[1:]
	s.mu.Unlock()
	address := cluster.Mailbox(agency, who.box)
	if err := who.load.Stop(ctx); err != nil {
		return fmt.Errorf("mail for %s: %w", address, err)
	}
	for _, n := range s.c.Nodes {
		if !s.until(ctx, func() bool {
			call, cancel := context.WithTimeout(ctx, callPatience)
			defer cancel()
			held, err := n.API.Spooled(call, admin.SpoolFilter{Mailbox: address}, "", 1)
			return err == nil && len(held.Messages) == 0
		}) {
			return fmt.Errorf("mail for %s is still at %s", address, n.Name)
		}
	}
	left := time.Now()
	if err := s.insist(ctx, func(ctx context.Context) error { return s.dir.Leave(ctx, agency, who.box) }); err != nil {
		return fmt.Errorf("take out %s: %w", address, err)
	}
	s.mu.Lock()
	s.roster.Entries[who.entry].Left = left
	s.mu.Unlock()
	if err := s.bring(ctx, agency, address, ""); err != nil {
		return err
	}
	s.mu.Lock()
	s.roster.Entries[who.entry].Retired = time.Now()
	s.mu.Unlock()
	s.tally.Add("people", "mailboxes taken out and retired", 1)
	n := s.c.Nodes[s.draw(len(s.c.Nodes))]
	s.c.Send(context.WithoutCancel(ctx), cluster.Senders{Node: n.Index, Addr: n.SMTP, Rcpts: []string{address}, Pace: s.pace, Named: true, Once: true})
	return nil
}

// retire has the mailboxes of an agency taken out of the table that the directory has no more, if
// there are any.
func (s *Storm) retire(ctx context.Context, n *cluster.Node, agency string) (tried bool, why string) {
	d, err := n.API.Drift(ctx, agency)
	if err != nil {
		return true, "drift: " + sayError(err)
	}
	if !slices.ContainsFunc(d.Drift, func(d admin.Drift) bool { return d.Kind == "gone" }) {
		return false, ""
	}
	if err := s.c.Arm(ctx, n, agency); err != nil {
		return true, "armed: " + sayError(err)
	}
	a, err := n.API.Agency(ctx, agency)
	if err != nil {
		return true, sayError(err)
	}
	started, err := n.Agree(ctx, admin.NewProposal{Kind: "retire", Agency: agency, ExpectedEpoch: a.Epoch, Reason: "campaign"})
	if err != nil {
		return true, "retired: " + sayError(err)
	}
	if started.Operation != nil {
		if op := s.ended(ctx, started.Operation.ID); op.Step != "done" {
			return true, "retired: " + op.Step + " " + op.Error
		}
	}
	s.tally.Add("operation", "retire done", 1)
	return true, "still to be seen"
}

// share gives the shared address to the other mailbox: in the directory, and by a list that changes
// answers.
func (s *Storm) share(ctx context.Context, agency string) error {
	s.mu.Lock()
	to := 3 - cmp.Or(s.holder[agency], 1)
	s.holder[agency] = to
	s.mu.Unlock()
	if err := s.insist(ctx, func(ctx context.Context) error { return s.c.Arm(ctx, s.anyNode(), agency) }); err != nil {
		return fmt.Errorf("arm %s: %w", agency, err)
	}
	h := Holding{Address: shared(agency), Mailbox: cluster.Mailbox(agency, to), Asked: time.Now()}
	if err := s.insist(ctx, func(ctx context.Context) error { return s.dir.Share(ctx, agency, to) }); err != nil {
		return fmt.Errorf("share %s: %w", h.Address, err)
	}
	if err := s.bring(ctx, agency, h.Address, h.Mailbox); err != nil {
		return err
	}
	h.Told = time.Now()
	s.tally.Add("people", "addresses given to another mailbox", 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roster.Holdings = append(s.roster.Holdings, h)
	return nil
}

// insist does something with the directory until it is done.
func (s *Storm) insist(ctx context.Context, do func(context.Context) error) error {
	var last error
	if !s.until(ctx, func() bool {
		call, cancel := context.WithTimeout(ctx, callPatience)
		defer cancel()
		last = do(call)
		return last == nil
	}) {
		return last
	}
	return nil
}

// bring brings lists of all mailboxes of an agency into force, as the directory has them, until a
// node knows an address as a mailbox's, and says that lists, directory and table agree.
func (s *Storm) bring(ctx context.Context, agency, address, mailbox string) error {
	last, began := "", time.Now()
	said := make(map[string]time.Time)
	if !s.until(ctx, func() bool {
		last = s.bringOnce(ctx, agency, address, mailbox)
		if last != "" && time.Since(said[last]) > 20*time.Second {
			said[last] = time.Now()
			s.log("list of %s: %s", agency, last)
		}
		return last == "" || !wait(ctx, s.upTo(500*time.Millisecond))
	}) || last != "" {
		return fmt.Errorf("no list of %s came into force that has %s as %s: %s", agency, address, mailbox, last)
	}
	s.log("list of %s: in force after %s", agency, time.Since(began).Round(time.Millisecond))
	return nil
}

// bringAsIs is an attempt to bring lists of an agency into force if they aren't.
func (s *Storm) bringAsIs(ctx context.Context, agency string) {
	s.mu.Lock()
	holder := cluster.Mailbox(agency, cmp.Or(s.holder[agency], 1))
	s.mu.Unlock()
	if missing := s.bringOnce(ctx, agency, shared(agency), holder); missing != "" {
		s.log("lists of %s, looked at again: %s", agency, missing)
	}
}

// bringOnce returns what is still missing; "": nothing.
func (s *Storm) bringOnce(ctx context.Context, agency, address, mailbox string) (missing string) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	n := s.anyNode()
	missing, err := s.agreed(ctx, n, agency, address, mailbox)
	if err != nil || missing == "" {
		return sayError(err)
	}
	if tried, why := s.retire(ctx, n, agency); tried {
		return why
	}
	made, err := n.API.Generate(ctx, admin.NewLists{Agency: agency, AcceptChanges: true})
	if err != nil {
		return "made: " + sayError(err)
	}
	for _, l := range made.Lists {
		if s.draw(2) == 0 {
			s.bringMixed(ctx, n.API, agency, l.CSV)
		}
		asked := time.Now()
		p, err := n.API.ImportList(ctx, admin.ListFile{Agency: agency, Name: l.ID, Content: []byte(l.CSV)}, "campaign")
		if err != nil {
			return "proposed: " + sayError(err)
		}
		if _, err := n.Second.ApproveTyped(ctx, p.ID, p.Digest, agency, "read"); err != nil {
			return "approved: " + sayError(err)
		}
		started, err := n.API.StartProposal(ctx, p.ID)
		if err != nil {
			return "activated: " + sayError(err)
		}
		if started.Operation != nil {
			if op := s.ended(ctx, started.Operation.ID); op.Step != "done" {
				return "remapped: " + op.Step + " " + op.Error
			}
			s.tally.Add("operation", "remap done", 1)
		}
		s.tally.Add("people", "lists activated", 1)
		s.mu.Lock()
		s.roster.Lists = append(s.roster.Lists, Activated{List: l.ID, Proposal: p.ID, Asked: asked, Told: time.Now()})
		s.mu.Unlock()
	}
	return "still to be seen"
}

// agreed returns what a node knows otherwise than the directory does, which it reads first.
func (s *Storm) agreed(ctx context.Context, n *cluster.Node, agency, address, mailbox string) (otherwise string, err error) {
	if _, err := n.API.Directories(ctx, true); err != nil {
		return "", err
	}
	kind := "cutover"
	if s.c.Where(agency) == cluster.OX {
		kind = "rollback"
	}
	plan, err := n.API.Plan(ctx, admin.PlanRequest{Kind: kind, Agency: agency})
	if err != nil {
		return "", err
	}
	for _, check := range plan.Checks {
		if check.Name == "lists" && !check.OK {
			return check.Text, nil
		}
	}
	r, err := n.API.Route(ctx, "address", address)
	if err != nil {
		return "", err
	}
	if r.Address != mailbox {
		return fmt.Sprintf("%s is at %q: %s", address, r.Address, r.Reason), nil
	}
	return "", nil
}

// ended waits for the end of an operation, which any node may tell.
func (s *Storm) ended(ctx context.Context, id string) (op admin.Operation) {
	s.mu.Lock()
	s.known[id] = true
	s.mu.Unlock()
	s.until(ctx, func() bool {
		call, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var err error
		op, err = s.anyNode().API.Operation(call, id)
		return err == nil && op.Ended
	})
	return op
}

// sayError is an error as people read it, with what is wrong in particular.
func sayError(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		for _, d := range p.Errors {
			text += "; " + strings.TrimPrefix(d.Where+": "+d.Message, ": ")
		}
	}
	return text
}

// troubleDirectory does something to the directory. Mail doesn't need it.
func (s *Storm) troubleDirectory(ctx context.Context) error {
	f := s.pick(ofDirectory)
	if err := f.do(s, ctx, nil); err != nil {
		return fmt.Errorf("trouble of the directory, %s: %w", f.name, err)
	}
	s.tally.Add("directory", f.name, 1)
	return nil
}

// ofDirectory are done to the directory; n is nil.
var ofDirectory = []fault{
	{"killed", 4, false, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		s.dir.Kill()
		wait(ctx, s.upTo(4*time.Second))
		return s.dir.Start(context.WithoutCancel(ctx))
	}},
	{"stopped", 4, false, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		if err := s.dir.Pause(); err != nil {
			return err
		}
		wait(ctx, s.upTo(8*time.Second))
		return s.dir.Resume()
	}},
	{"slow", 4, false, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		for range 3 + s.draw(8) {
			if err := s.dir.Pause(); err != nil {
				return err
			}
			wait(ctx, s.upTo(time.Second))
			if err := s.dir.Resume(); err != nil {
				return err
			}
			wait(ctx, s.upTo(50*time.Millisecond))
		}
		return nil
	}},
	{"cut off from some nodes", 4, true, func(s *Storm, ctx context.Context, _ *cluster.Node) error {
		var from []string
		for _, h := range s.w.Nodes {
			if s.draw(2) == 0 {
				from = append(from, h.IP)
			}
		}
		if err := s.w.Net.Cut(s.w.Directory, from...); err != nil {
			return err
		}
		wait(ctx, s.upTo(6*time.Second))
		return s.w.Net.Mend(s.w.Directory)
	}},
}
