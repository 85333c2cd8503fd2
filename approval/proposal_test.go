package approval

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func content() Content {
	return Content{
		Kind: "cutover", Agency: "health", Epochs: map[routing.AgencyID]routing.Epoch{"health": {Term: 1, Number: 7}},
		Parameters: json.RawMessage(`{"without":[]}`), Plan: routing.Digest{1}, List: routing.Digest{2},
	}
}

func propose(t *testing.T, needed int) Proposal {
	t.Helper()
	p, err := New(Proposal{
		ID: "p1", Content: content(), Text: []string{"12 mailboxes go from exchange to ox"},
		Person: "Anna Berg", Token: "anna-laptop", Reason: "wave 3", Created: noon, Expires: noon.Add(time.Hour), Needed: needed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func by(person string, after time.Duration) Vote {
	return Vote{Person: person, Token: "t", Time: noon.Add(after)}
}

func approve(t *testing.T, p Proposal, persons ...string) Proposal {
	t.Helper()
	for _, person := range persons {
		var err error
		if p, err = p.Approve(by(person, time.Minute), p.Digest()); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func use(p Proposal, person string) (Proposal, error) {
	c := content()
	return p.Use(by(person, 2*time.Minute), &c, 0, "op")
}

// An umlaut is one character or two, by who wrote the configuration.
func TestPersonByUnicode(t *testing.T) {
	if Person("J\u00f6rg  Mei\u00dfner") != Person("jo\u0308rg\u00a0mei\u00dfner") || Person("J\u00f6rg") == Person("Jorg") {
		t.Error("one person has two names, or two have one")
	}
}

// All pairs of who proposes and who approves, by however many tokens.
func TestWhoApproves(t *testing.T) {
	persons := []string{"Anna Berg", "anna berg", " Anna  Berg ", "ANNA BERG", "Ben Roth", "Carla Diaz", ""}
	for _, proposer := range persons {
		for _, approver := range persons {
			p := propose(t, 1)
			p.Person = proposer
			_, err := p.Approve(Vote{Person: approver, Token: "another-token", Time: noon}, p.Digest())
			same := Person(proposer) == Person(approver)
			if good := !same && Person(approver) != ""; (err == nil) != good {
				t.Errorf("proposed by %q, approved by %q: %v", proposer, approver, err)
			}
			if same && approver != "" && !errors.Is(err, ErrOwn) {
				t.Errorf("proposed by %q, approved by %q: %v", proposer, approver, err)
			}
		}
	}
}

func TestNeeded(t *testing.T) {
	for needed := range 4 {
		p := propose(t, needed)
		for i, person := range []string{"Ben Roth", "Carla Diaz", "Dora Elm"} {
			_, err := use(p, "Anna Berg")
			if got, want := err == nil, i >= needed; got != want {
				t.Errorf("%d of %d: %v", i, needed, err)
			}
			if err != nil && !errors.Is(err, ErrNotApproved) {
				t.Error(err)
			}
			p = approve(t, p, person)
			if _, err := p.Approve(by(strings.ToUpper(person), time.Minute), p.Digest()); !errors.Is(err, ErrTwice) {
				t.Errorf("%s twice: %v", person, err)
			}
		}
	}
	// More are wanted today than when it was proposed.
	c := content()
	if _, err := approve(t, propose(t, 1), "Ben Roth").Use(by("Anna Berg", 0), &c, 2, "op"); !errors.Is(err, ErrNotApproved) {
		t.Error(err)
	}
}

// It is used once, by anybody, and what was refused before it began may be tried again.
func TestOnce(t *testing.T) {
	p := approve(t, propose(t, 1), "Ben Roth")
	used, err := use(p, "Carla Diaz")
	if err != nil || used.State(noon, 0) != Used || used.Operation != "op" {
		t.Fatalf("%+v, %v", used, err)
	}
	if _, err := use(used, "Anna Berg"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := used.Approve(by("Dora Elm", 0), used.Digest()); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := used.Withdraw(by("Anna Berg", 0)); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := used.Return("another"); err == nil {
		t.Error("another operation gave it back")
	}
	back, err := used.Return("op")
	if err != nil || back.State(noon, 0) != Approved {
		t.Fatalf("%+v, %v", back, err)
	}
	if _, err := use(back, "Anna Berg"); err != nil {
		t.Error(err)
	}
}

// Whatever of the content changes, the proposal is void; approvals don't help.
func TestVoid(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Content)
		why    string
	}{
		"kind":   {func(c *Content) { c.Kind = "rollback" }, "it is for another act"},
		"agency": {func(c *Content) { c.Agency = "tax" }, "it is for another act"},
		"node":   {func(c *Content) { c.Node = "mx2" }, "it is for another act"},
		"epoch": {func(c *Content) { c.Epochs = map[routing.AgencyID]routing.Epoch{"health": {Term: 1, Number: 8}} },
			"agency health is in epoch 1.8, the proposal was made in 1.7"},
		"term": {func(c *Content) { c.Epochs = map[routing.AgencyID]routing.Epoch{"health": {Term: 2, Number: 7}} },
			"agency health is in epoch 2.7, the proposal was made in 1.7"},
		"other agency": {func(c *Content) { c.Epochs = map[routing.AgencyID]routing.Epoch{"tax": {Term: 1, Number: 7}} }, "agency health is in epoch 0.0"},
		"one more": {func(c *Content) {
			c.Epochs = map[routing.AgencyID]routing.Epoch{"health": {Term: 1, Number: 7}, "health-pilot": {Term: 1, Number: 2}}
		}, "other agencies are concerned"},
		"none":       {func(c *Content) { c.Epochs = nil }, "agency health is in epoch 0.0"},
		"parameters": {func(c *Content) { c.Parameters = json.RawMessage(`{"without":["forward-on"]}`) }, "its parameters are others"},
		"plan":       {func(c *Content) { c.Plan = routing.Digest{9} }, "the plan is another"},
		"list":       {func(c *Content) { c.List = routing.Digest{9} }, "the list is another"},
	} {
		t.Run(name, func(t *testing.T) {
			p := approve(t, propose(t, 1), "Ben Roth", "Carla Diaz")
			now := content()
			c.change(&now)
			void, err := p.Use(by("Anna Berg", time.Minute), &now, 0, "op")
			if !errors.Is(err, ErrVoid) || void.State(noon, 0) != Void || !strings.HasPrefix(void.Why, c.why) {
				t.Fatalf("%+v, %v, want %q", void, err, c.why)
			}
			if _, err := use(void, "Anna Berg"); !errors.Is(err, ErrEnded) {
				t.Errorf("void, and used all the same: %v", err)
			}
		})
	}
}

func TestTime(t *testing.T) {
	p := approve(t, propose(t, 1), "Ben Roth")
	late := by("Carla Diaz", time.Hour+time.Second)
	c := content()
	if _, err := p.Use(late, &c, 0, "op"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := p.Approve(late, p.Digest()); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if s := p.State(late.Time, 0); s != Expired {
		t.Error(s)
	}
}

func TestWithdraw(t *testing.T) {
	p := approve(t, propose(t, 1), "Ben Roth")
	if _, err := p.Withdraw(by("Ben Roth", 0)); !errors.Is(err, ErrNotProposer) {
		t.Error(err)
	}
	gone, err := p.Withdraw(by("anna berg", 0))
	if err != nil || gone.State(noon, 0) != Withdrawn {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, err := use(gone, "Anna Berg"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// An approval is bound to all that the approver has read.
func TestDigest(t *testing.T) {
	p := propose(t, 1)
	for name, change := range map[string]func(*Proposal){
		"id":      func(p *Proposal) { p.ID = "p2" },
		"content": func(p *Proposal) { p.Plan = routing.Digest{9} },
		"text":    func(p *Proposal) { p.Text = []string{"13 mailboxes"} },
		"person":  func(p *Proposal) { p.Person = "Ben Roth" },
		"reason":  func(p *Proposal) { p.Reason = "wave 4" },
		"expires": func(p *Proposal) { p.Expires = p.Expires.Add(time.Hour) },
		"needed":  func(p *Proposal) { p.Needed = 0 },
	} {
		other := p
		change(&other)
		if _, err := other.Approve(by("Carla Diaz", time.Minute), p.Digest()); !errors.Is(err, ErrDigest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if approved := approve(t, p, "Ben Roth"); approved.Digest() != p.Digest() {
		t.Error("an approval changed the digest")
	}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Proposal){
		"no id":          func(p *Proposal) { p.ID = "" },
		"no kind":        func(p *Proposal) { p.Kind = "" },
		"no person":      func(p *Proposal) { p.Person = "  " },
		"no reason":      func(p *Proposal) { p.Reason = "\t" },
		"no time":        func(p *Proposal) { p.Expires = p.Created },
		"negative":       func(p *Proposal) { p.Needed = -1 },
		"not JSON":       func(p *Proposal) { p.Parameters = json.RawMessage(`{`) },
		"approved by me": func(p *Proposal) { p.Approvals = []Vote{{Person: "Ben Roth"}} },
		"used":           func(p *Proposal) { p.End = Used },
	} {
		p := propose(t, 1)
		change(&p)
		if _, err := New(p); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestDocuments(t *testing.T) {
	p := approve(t, propose(t, 1), "Ben Roth")
	d, err := p.Document()
	if err != nil {
		t.Fatal(err)
	}
	d.Revision = 4
	newer := d
	newer.Key, newer.Text = "proposal/p9", strings.Replace(d.Text, `"p1"`, `"p9","quorum":7`, 1)
	moved := d
	moved.Key = "proposal/p8"
	state, err := routing.NewState(routing.Position{}).Apply(routing.Update{Documents: []routing.Document{d, newer, moved, {Key: "audit/mx1", Text: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := Find(state, "p1")
	if err != nil || !ok || got.Digest() != p.Digest() || got.Revision != 4 || len(got.Approvals) != 1 {
		t.Errorf("%+v, %t, %v", got, ok, err)
	}
	if _, ok, err := Find(state, "p7"); ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if _, ok, err := Find(state, "p9"); ok || !errors.Is(err, ErrUnreadable) {
		t.Errorf("%t, %v", ok, err)
	}
	if all, unreadable := List(state); len(all) != 1 || len(unreadable) != 2 {
		t.Errorf("%v, %v", all, unreadable)
	}
	if gone := Outdated(state, noon.Add(Kept)); len(gone) != 0 {
		t.Errorf("%v", gone)
	}
	if gone := Outdated(state, noon.Add(Kept+2*time.Hour)); len(gone) != 1 || !gone[0].Removed || gone[0].Revision != 4 {
		t.Errorf("%v", gone)
	}
}
