package campaign

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/test/cluster"
)

// Lock is a lock that all nodes have acknowledged.
type Lock struct {
	Agency string
	Told   time.Time // that all nodes are closed
	Ended  time.Time // when its end was asked for
}

// targetDead is an emergency in which the target is lost.
const targetDead = "emergency, target dead"

// listsAgain is after how long without success somebody looks whether the lists of an agency are
// still there.
const listsAgain = 15 * time.Second

// callPatience is how long a person waits for an answer of the API.
const callPatience = 30 * time.Second

// operate has people do one thing to an agency, and see to its end.
func (s *Storm) operate(ctx context.Context, agency string) error {
	switch k := s.draw(30); {
	case k < 2:
		return s.lock(ctx, agency)
	case k < 5:
		return s.change(ctx, agency, "abort")
	case k < 7 && s.c.Where(agency) == cluster.OX:
		return s.change(ctx, agency, "emergency")
	case k < 9:
		return s.enter(ctx, agency)
	case k < 10:
		return s.share(ctx, agency)
	case k < 11:
		return s.leave(ctx, agency)
	default:
		return s.change(ctx, agency, "switch")
	}
}

// change switches an agency to its other platform, tries it in an emergency, or aborts that.
func (s *Storm) change(ctx context.Context, agency, how string) error {
	asked := time.Now()
	var o *cluster.Running
	said, tried := "", time.Now()
	if !s.until(ctx, func() bool {
		if o, said = s.begin(ctx, s.anyNode(), agency, how, asked); o != nil {
			return true
		}
		if time.Since(tried) > listsAgain { // a failover of Redis may have lost a list
			s.bringAsIs(ctx, agency)
			tried = time.Now()
		}
		return false
	}) {
		return fmt.Errorf("%s of %s did not begin: %s", how, agency, said)
	}
	if how == "abort" && wait(ctx, s.upTo(300*time.Millisecond)) {
		call, cancel := context.WithTimeout(ctx, callPatience)
		if _, err := s.anyNode().API.Abort(call, o.ID, "campaign"); err == nil {
			s.tally.Add("people", "aborts taken on", 1)
		}
		cancel()
	}
	op, err := o.Finish(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.known[o.ID] = true
	s.mu.Unlock()
	s.tally.Add("operation", op.Kind+" "+op.Step, 1)
	if len(op.Fenced) > 0 {
		s.tally.Add("operation", "with a node fenced", 1)
	}
	s.log("%s of %s: %s after %s, closed for %.1f s, fenced %q %s", op.Kind, agency, op.Step, time.Since(asked).Round(time.Millisecond), op.ClosedFor, op.Fenced, op.Error)
	if how != "emergency" {
		return nil
	}
	return s.confirm(ctx, agency)
}

// begin asks a node; where its answer is lost, the operation may be there even so. It returns nil
// and why if there is none.
func (s *Storm) begin(ctx context.Context, n *cluster.Node, agency, how string, asked time.Time) (*cluster.Running, string) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	var err error
	var o *cluster.Running
	if how == "emergency" || how == targetDead {
		var a admin.Agency
		if a, err = n.API.Agency(ctx, agency); err == nil {
			var op admin.Operation
			if op, err = n.API.RollbackEmergency(ctx, agency, a.Epoch, "campaign", how == targetDead); err == nil {
				o = s.c.Follow(agency, op.ID, asked)
			}
		}
	} else {
		o, err = s.c.Begin(ctx, n, agency)
	}
	if err == nil {
		return s.c.Follow(agency, o.ID, asked), ""
	}
	for _, n := range s.c.Nodes {
		if s.c.Down(n.Index) {
			continue
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		all, oerr := n.API.Operations(call, agency)
		cancel()
		if oerr != nil {
			continue
		}
		for _, op := range all.Operations {
			s.mu.Lock()
			known := s.known[op.ID]
			s.mu.Unlock()
			if !known && op.Kind != "remap" {
				s.log("%s of %s goes on though its beginning was answered: %v", how, agency, err)
				return s.c.Follow(agency, op.ID, asked), ""
			}
		}
	}
	return nil, err.Error()
}

// confirm has a second person confirm an emergency.
func (s *Storm) confirm(ctx context.Context, agency string) error {
	last := ""
	if !s.until(ctx, func() bool {
		call, cancel := context.WithTimeout(ctx, callPatience)
		defer cancel()
		n := s.anyNode()
		a, err := n.API.Agency(call, agency)
		if err != nil {
			last = err.Error()
			return false
		}
		for _, id := range a.Unconfirmed {
			if _, err := n.Second.ConfirmEmergency(call, id, "seen"); err != nil {
				last = err.Error()
				return false
			}
			s.tally.Add("people", "emergencies confirmed", 1)
		}
		return true
	}) {
		return fmt.Errorf("an emergency of %s was not confirmed: %s", agency, last)
	}
	return nil
}

// lock locks an agency, and unlocks it.
func (s *Storm) lock(ctx context.Context, agency string) error {
	s.hold(agency, true)
	defer s.hold(agency, false)
	n := s.anyNode()
	end := s.c.Trouble("locked", -1, agency)
	defer end()
	call, cancel := context.WithTimeout(ctx, callPatience)
	acted, err := n.API.Lock(call, agency, "", "campaign")
	cancel()
	told := time.Now()
	if err != nil {
		s.log("lock of %s: %v", agency, err)
	}
	all := err == nil && acted.Complete && !slices.ContainsFunc(acted.Nodes, func(r admin.Receipt) bool { return r.Standing != "closed" && r.Standing != "gone" })
	wait(ctx, s.upTo(2*time.Second))
	asked := time.Now()
	if all {
		s.tally.Add("people", "locks that all nodes acknowledged", 1)
		s.mu.Lock()
		s.locks = append(s.locks, Lock{Agency: agency, Told: told, Ended: asked})
		s.mu.Unlock()
	} else {
		s.tally.Add("people", "other locks", 1)
	}
	last := ""
	if !s.until(ctx, func() bool {
		last = s.unlock(ctx, agency)
		return last == ""
	}) {
		return fmt.Errorf("%s was not unlocked: %s", agency, last)
	}
	s.hold(agency, false)         // what a failover has lost meanwhile is others' again
	return s.confirm(ctx, agency) // one person locked it, and its unlocking may not have ended that
}

func (s *Storm) hold(agency string, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[agency] = held
}

// unlock unlocks an agency; "" if it isn't locked.
func (s *Storm) unlock(ctx context.Context, agency string) (why string) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	n := s.anyNode()
	a, err := n.API.Agency(ctx, agency)
	if err != nil {
		return err.Error()
	}
	if !a.Locked && !a.Regressed {
		return ""
	}
	p := admin.NewProposal{Kind: "unlock", Agency: agency, ExpectedEpoch: a.Epoch, Reason: "campaign"}
	if a.Regressed { // what a failover has lost comes first
		p.Kind, p.ExpectedEpoch = "reconcile", ""
	}
	if _, err := n.Agree(ctx, p); err != nil {
		return err.Error()
	}
	return "still to be seen"
}

// Locks are the locks that all nodes acknowledged.
func (s *Storm) Locks() []Lock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.locks)
}

// attend does what alarms ask people for: end a rejoin, hold agencies against what was known and
// open them, resume a spool.
func (s *Storm) attend(ctx context.Context) {
	said := make(map[string]time.Time)
	for wait(ctx, time.Second) {
		n := s.anyNode()
		call, cancel := context.WithTimeout(ctx, callPatience)
		if err := s.attendOnce(call, n, said); err != nil && ctx.Err() == nil && !s.c.Down(n.Index) {
			if text := err.Error(); time.Since(said[text]) > 20*time.Second {
				said[text] = time.Now()
				s.log("attending at %s: %s", n.Name, text)
			}
		}
		cancel()
	}
}

func (s *Storm) attendOnce(ctx context.Context, n *cluster.Node, since map[string]time.Time) error {
	all, err := n.API.Nodes(ctx)
	if err != nil {
		return err
	}
	agree := func(kind, agency, epoch string) error {
		_, err := n.Agree(ctx, admin.NewProposal{Kind: kind, Agency: agency, ExpectedEpoch: epoch, Reason: "campaign"})
		if err == nil {
			s.tally.Add("people", kind, 1)
			s.log("people: %s %s", kind, agency)
		}
		return err
	}
	const rejoin = "rejoin since"
	if all.Rejoining == "" {
		delete(since, rejoin)
	} else if since[rejoin].IsZero() {
		since[rejoin] = time.Now()
	} else if time.Since(since[rejoin]) > 8*time.Second { // by itself it takes one round of all nodes
		return agree("end-rejoin", "", "")
	}
	agencies, err := n.API.Agencies(ctx)
	if err != nil {
		return err
	}
	for _, a := range agencies {
		s.mu.Lock()
		held := s.held[a.ID]
		s.mu.Unlock()
		switch {
		case held:
		case a.Regressed:
			return agree("reconcile", a.ID, "")
		case a.Locked:
			return agree("unlock", a.ID, a.Epoch)
		case len(a.Unconfirmed) > 0: // a lock, say, that was taken on though its answer was lost
			if _, err := n.Second.ConfirmEmergency(ctx, a.Unconfirmed[0], "seen"); err != nil {
				return err
			}
			s.tally.Add("people", "emergencies confirmed", 1)
		}
	}
	spool, err := n.API.Spool(ctx)
	if err != nil {
		return err
	}
	if strings.Contains(spool.Refusing, "disk") && !s.c.Down(n.Index) {
		if _, err := n.API.ResumeSpool(ctx, "campaign"); err != nil {
			return err
		}
		s.tally.Add("people", "spools resumed", 1)
	}
	return nil
}
