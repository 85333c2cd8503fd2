package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/plan"
	plandesk "mailcutover/plan/desk"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// waveParameters are what a wave is proposed with, besides its digest and the epochs.
type waveParameters struct {
	Wave plan.Name `json:"wave"`
}

func waveParametersOf(p *approval.Proposal) (with waveParameters, err error) {
	if err = json.Unmarshal(p.Parameters, &with); err != nil {
		err = fmt.Errorf("proposal %s: %w: %w", p.ID, approval.ErrUnreadable, err)
	}
	return with, err
}

// waveKind lets a wave run. It is proposed with its definition, by propose-wave.
func waveKind() *kind {
	return &kind{
		name: plandesk.Kind, right: mayList, starts: mayOperate, needs: []string{},
		about: "cut the agencies of a wave over, one after the other, within its windows; proposed with its definition: mailcutover wave propose",
		content: func(*Server, context.Context, *routing.State, *NewProposal) (c approval.Content, text []string, err error) {
			return c, nil, problem(http.StatusBadRequest, "mailcutover wave propose NAME --file FILE", "a wave is proposed with its definition")
		},
		now: func(_ *Server, _ context.Context, state *routing.State, p *approval.Proposal) (approval.Content, error) {
			c := p.Content
			c.Epochs = epochsNow(state, p.Epochs)
			with, err := waveParametersOf(p)
			if err != nil {
				return c, err
			}
			w, err := plan.Find(state, with.Wave)
			if err != nil && !errors.Is(err, plan.ErrNoWave) {
				return c, err
			}
			if c.Plan = (routing.Digest{}); err == nil && w.Proposal == p.ID && w.Standing == plan.Proposed {
				bound, _ := plan.Bind(state, w.Name, w.Definition) // of agencies that aren't as they were, another one
				c.Plan = bound.Digest()
			}
			return c, nil
		},
		use:     useWave,
		refusal: unlessLate,
	}
}

// waveOf returns the wave that a proposal is for; empty: none.
func waveOf(p *approval.Proposal) string {
	if p.Kind != plandesk.Kind {
		return ""
	}
	with, err := waveParametersOf(p)
	if err != nil {
		return "" // its text says more
	}
	return string(with.Wave)
}

// proposeWave stores a wave with its proposal, in the place of one of its name that doesn't run.
func (s *Server) proposeWave(ctx context.Context, in *NewWave) (*reply[Proposal], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	name, err := plan.ParseName(in.Name)
	if err != nil {
		return nil, err
	}
	desk, err := s.waveDesk()
	if err != nil {
		return nil, err
	}
	looked, _ := desk.Plan()
	d, err := in.Definition.definition(looked.Settings.Retries)
	if err != nil {
		return nil, err
	}
	state := s.Replica.State()
	if err := mayPlan(state, name, &d); err != nil {
		return nil, err
	}
	bound, err := plan.Bind(state, name, d)
	if err != nil {
		return nil, problem(http.StatusConflict, "see mailcutover agency list", "%s", err.Error())
	}
	content := approval.Content{Kind: plandesk.Kind, Epochs: map[routing.AgencyID]routing.Epoch{}, Plan: bound.Digest()}
	for _, c := range bound.Covers {
		content.Epochs[c.Agency] = c.Epoch
	}
	if content.Parameters, err = parameters(content.Kind, waveParameters{name}); err != nil {
		return nil, err
	}
	p, err := s.newProposal(ctx, content, waveText(desk, &bound), reason)
	if err == nil {
		err = s.mayUse(ctx, waveKind(), &p)
	}
	if err != nil || in.DryRun {
		return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
	}
	err = s.store(ctx, "propose wave "+string(name), reason, func(state *routing.State) (approval.Proposal, []routing.Document, error) {
		if err := mayPlan(state, name, &d); err != nil {
			return p, nil, err
		}
		w := plan.New(bound, p.ID, p.Person, reason, p.Created)
		if was, err := plan.Find(state, name); err == nil || !errors.Is(err, plan.ErrNoWave) {
			w.Revision = was.Revision
		}
		doc, err := w.Document()
		if err != nil {
			return p, nil, problem(http.StatusBadRequest, "make two waves of it", "%s", err.Error())
		}
		gone := slices.DeleteFunc(plan.Outdated(state, p.Created), func(d routing.Document) bool { return d.Key == doc.Key })
		return p, append(gone, doc, plan.Turn(state)), nil
	})
	return &reply[Proposal]{Body: proposalView(&p, s.needed())}, err
}

// mayPlan refuses a wave in the place of one that runs, after one that isn't there, or with an
// agency of another one.
func mayPlan(state *routing.State, name plan.Name, d *plan.Definition) error {
	all, unreadable := plan.Waves(state)
	if err := errors.Join(unreadable...); err != nil {
		return err
	}
	there := map[plan.Name]bool{}
	for i := range all {
		w := &all[i]
		if w.Name == name {
			if w.Standing == plan.Running || w.Standing == plan.Paused {
				return problem(http.StatusConflict, "end it first: mailcutover wave end "+string(name), "wave %s is %s", name, w.Standing)
			}
			if slices.ContainsFunc(w.Runs, func(r plan.Run) bool { return r.Place.Busy() }) {
				return problem(http.StatusConflict, "wait for it: mailcutover wave show "+string(name), "an agency of wave %s is still under way", name)
			}
			continue
		}
		there[w.Name] = true
		for _, id := range d.Agencies {
			if r := w.Run(id); r != nil && !w.Standing.Over() && (!r.Place.Over() || r.Place == plan.Aborted) {
				hint := "skip it there: mailcutover wave skip " + string(w.Name) + " " + string(id)
				if w.Standing == plan.Proposed {
					hint = "end that one: mailcutover wave end " + string(w.Name)
				}
				return problem(http.StatusConflict, hint, "agency %s is in wave %s, which is %s", id, w.Name, w.Standing)
			}
		}
	}
	for _, n := range d.After {
		if !there[n] {
			return problem(http.StatusConflict, "propose that one first", "the wave comes after wave %s, which isn't there", n)
		}
	}
	return nil
}

// waveText says what is approved.
func waveText(desk *plandesk.Desk, b *plan.Bound) []string {
	d := &b.Definition
	text := []string{
		fmt.Sprintf("WAVE %s: %d agencies, owner %s", b.Wave, len(b.Covers), d.Owner),
		"an approval covers the cutover of each of these agencies, once, in this order, started by the nodes themselves within the windows below,",
		"as long as its checklist holds and nothing has happened to its record since. It covers no rollback, and no hook that is left out.",
	}
	if d.Retries == 0 {
		text = append(text, "One that is aborted is not tried again.")
	} else {
		text = append(text, fmt.Sprintf("One that is aborted is not tried again by itself, but if an operator names it (wave resume --retry), under the same conditions: each at most so many times: %d.", d.Retries))
	}
	if d.Pilot {
		text = append(text, "PILOT: every wave that is none waits until this one is done and has rested")
	}
	if len(d.After) > 0 {
		text = append(text, "after: "+strings.Join(texts(d.After), ", "))
	}
	p, _ := desk.Plan()
	text = append(text, "", "agencies:")
	for i, c := range b.Covers {
		e := p.Forecast.Of(p.Facts.Mailboxes(c.Agency))
		text = append(text, fmt.Sprintf("  %d. %s, epoch %s, from %s to %s, %d mailboxes; likely to take %s, at worst %s", i+1, c.Agency, c.Epoch, c.Source, c.Target, p.Facts.Mailboxes(c.Agency), e.Expected.Round(time.Second), e.Worst.Round(time.Second)))
	}
	text = append(text, "  the forecast rests on "+p.Forecast.Of(p.Facts.Mailboxes(b.Covers[0].Agency)).Rests)
	text = append(text, "", fmt.Sprintf("at once: %d; baked for %s after each; the wave rests for %s at its end", d.Seats(), d.Bake, d.Rest))
	text = append(text, "windows, by the clocks of "+d.Zone+":")
	for i := range d.Windows {
		text = append(text, "  "+d.Windows[i].String())
	}
	if schedule, err := d.Schedule(); err == nil {
		from := p.Now
		text = append(text, "  the next ones:")
		for range 3 {
			slot, ok := schedule.Next(from, time.Minute)
			if !ok {
				break
			}
			text = append(text, fmt.Sprintf("    %s to %s", slot.Begin.In(schedule.Place()).Format("Mon 2006-01-02 15:04 MST"), slot.End.In(schedule.Place()).Format("Mon 2006-01-02 15:04 MST")))
			from = slot.End
		}
	}
	dates := func(all []plan.Day) string {
		out := make([]string, len(all))
		for i, one := range all {
			out[i] = one.String()
		}
		return strings.Join(out, ", ")
	}
	for _, one := range []struct{ label, text string }{
		{"public holidays of", string(d.State)}, {"further holidays:", dates(d.Holidays)}, {"never on", dates(d.Never)}, {"not before", d.NotBefore.String()}, {"not after", d.NotAfter.String()},
	} {
		if one.text != "" {
			text = append(text, one.label+" "+one.text)
		}
	}
	text = append(text, "", "checklist, besides what the program looks at:", "  "+plan.Backup)
	for _, it := range d.Checks {
		valid := "until the wave ends"
		if it.Valid > 0 {
			valid = "for " + it.Valid.String()
		}
		text = append(text, fmt.Sprintf("  %s: %s (an answer counts %s)", it.ID, it.Text, valid))
	}
	return text
}

// useWave lets a wave run.
func useWave(s *Server, ctx context.Context, p *approval.Proposal) (*Started, error) {
	with, err := waveParametersOf(p)
	if err != nil {
		return nil, err
	}
	_, err = s.storeWave(ctx, with.Wave, "start", p.Reason, audit.Entry{Proposal: p.ID, Digests: []string{p.Plan.String()}}, func(w plan.Wave, by plan.Word) (plan.Wave, error) {
		if w.Proposal != p.ID {
			return w, fmt.Errorf("start wave %s: %w: it was proposed again", w.Name, approval.ErrVoid)
		}
		by.Reason = p.Reason
		return w.Start(by, approvers(p))
	})
	if err != nil {
		return nil, err
	}
	s.lookAtWaves()
	return &Started{
		Done: fmt.Sprintf("wave %s runs: the nodes start its agencies when their time has come; mailcutover wave plan says when that is", with.Wave),
		Undo: "mailcutover wave pause " + string(with.Wave),
	}, nil
}

func (s *Server) lookAtWaves() {
	if s.Plan != nil {
		s.Plan.Look()
	}
}

// changeWave carries out what a person says about a wave.
func (s *Server) changeWave(ctx context.Context, name, what, why string, next func(plan.Wave, plan.Word) (plan.Wave, error)) (*reply[Wave], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	if _, err := s.storeWave(ctx, plan.Name(name), what, reason, audit.Entry{}, next); err != nil {
		return nil, err
	}
	s.lookAtWaves()
	v, err := s.wave(name)
	return &reply[Wave]{Body: v}, err
}

// storeWave stores what next makes of a wave, in the caller's name.
func (s *Server) storeWave(ctx context.Context, name plan.Name, what, reason string, entry audit.Entry, next func(plan.Wave, plan.Word) (plan.Wave, error)) (plan.Wave, error) {
	var out plan.Wave
	by := plan.Word{Person: callerOf(ctx).person, Time: time.Now().UTC().Truncate(time.Second), Reason: reason}
	_, err := s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		w, err := plan.Find(state, name)
		if err != nil {
			return c, nil, err
		}
		if err := s.within(ctx, w.Definition.Agencies); err != nil {
			return c, nil, err
		}
		if out, err = next(w, by); err != nil {
			return c, nil, err
		}
		entry.Subject, entry.Before, entry.After = "wave "+string(name), waveLine(&w), waveLine(&out)
		d, err := out.Document()
		return table.Change{Documents: []routing.Document{d, plan.Turn(state)}, What: what + " wave " + string(name), Reason: reason}, nil, err
	})
	return out, err
}

// waveLine is what the audit log says of a wave.
func waveLine(w *plan.Wave) string {
	words := []string{string(w.Standing)}
	for i := range w.Runs {
		words = append(words, string(w.Runs[i].Agency)+"="+string(w.Runs[i].Place))
	}
	for _, a := range w.Answers {
		words = append(words, fmt.Sprintf("%s=%t by %s", a.Item, a.OK, a.Person))
	}
	return clip(strings.Join(words, " "))
}

func (s *Server) stopPlan(ctx context.Context, why string) (*reply[Waves], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	who := callerOf(ctx).person
	_, err = s.changeAs(ctx, &audit.Entry{Subject: "the plan", After: "stopped"}, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		c = table.Change{What: "stop the plan", Reason: reason, Guard: table.Guard{Rejoining: true}}
		now := time.Now()
		c.Documents, err = plan.Trip(state, plan.Finding{Cause: plan.ByPerson, Text: who + ": " + reason, Keys: []string{now.UTC().Format(time.RFC3339Nano)}, Time: now, Node: s.Node}, who)
		return c, nil, err
	})
	return &reply[Waves]{Body: s.waves()}, err
}

// liftPlan lifts the stop, if it is the one that was looked at; seen 0: whatever it is.
func (s *Server) liftPlan(ctx context.Context, seen routing.Revision, why string) (*reply[Waves], error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	reason, err := checkReason(why)
	if err != nil {
		return nil, err
	}
	entry := audit.Entry{Subject: "the plan", After: "not stopped"}
	_, err = s.changeAs(ctx, &entry, func(state *routing.State) (c table.Change, _ []*routing.Mapping, err error) {
		if now, _ := plan.StopOf(state); now != nil && seen != 0 && now.Revision != seen {
			return c, nil, problem(http.StatusConflict, "look at each: mailcutover wave list", "the stop has changed since it was looked at: it has %d findings now, the last is: %s", len(now.Findings), now.Findings[len(now.Findings)-1].Text)
		}
		docs, stop, err := plan.Lift(state, callerOf(ctx).person, reason, time.Now())
		if err == nil {
			entry.Before = clip("stopped since " + stop.Since.UTC().Format(time.RFC3339) + ": " + stop.Why())
		}
		return table.Change{Documents: docs, What: "lift the stop of the plan", Reason: reason}, nil, err
	})
	s.lookAtWaves()
	return &reply[Waves]{Body: s.waves()}, err
}

// inNameOf is a context for what a node does by itself.
func inNameOf(ctx context.Context, as, operation string) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{id: uuid.NewString(), caller: caller{token: "-", person: as}, operation: operation})
}

// ChangePlan implements the Acts of plan/desk.
func (s *Server) ChangePlan(ctx context.Context, as string, compute func(*routing.State) (table.Change, error)) error {
	ctx = inNameOf(ctx, as, "change-plan")
	var entry audit.Entry
	_, err := s.changeAs(ctx, &entry, func(state *routing.State) (table.Change, []*routing.Mapping, error) {
		c, err := compute(state)
		entry = audit.Entry{Subject: as}
		if len(c.Agencies) == 0 {
			entry.After = c.What
		}
		return c, nil, err
	})
	if err != nil {
		s.recordFailure(ctx, err)
	}
	return err
}

// Cutover implements the Acts of plan/desk: the operation is recorded, begun and watched as one
// that a person starts.
func (s *Server) Cutover(ctx context.Context, req operation.Request, proposal string) (operation.Operation, error) {
	ctx = inNameOf(ctx, req.Who, "cutover")
	op, _, err := s.begin(ctx, req, proposal)
	if err != nil {
		s.recordFailure(ctx, err)
		return op, err
	}
	l := s.operations.find(op.ID)
	if l == nil {
		return op, nil // it has ended, and others since
	}
	for {
		op, running, changed, err := l.look()
		if !running {
			return op, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return op, ctx.Err()
		}
	}
}
