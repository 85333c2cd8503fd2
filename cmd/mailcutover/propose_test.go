package main

import (
	"testing"

	"mailcutover/admin"
)

// A command starts what was approved only if it says the same thing.
func TestIsFor(t *testing.T) {
	cutover := admin.Proposal{Kind: "cutover", Agency: "health", Epochs: []string{"health 1.4"}}
	lame := cutover
	lame.Without = []string{"close-ox"}
	publish := admin.Proposal{Kind: "publish", Agency: "health", Epochs: []string{"health 1.4"}, About: "op-1", Replica: "r1"}
	without := admin.Proposal{Kind: "without-hook", Agency: "health", About: "op-1", Hook: "close-ox"}
	for name, c := range map[string]struct {
		proposal admin.Proposal
		asked    admin.NewProposal
		want     bool
	}{
		"cutover":               {cutover, admin.NewProposal{Kind: "cutover", Agency: "health", ExpectedEpoch: "1.4"}, true},
		"any epoch":             {cutover, admin.NewProposal{Kind: "cutover", Agency: "health"}, true},
		"another epoch":         {cutover, admin.NewProposal{Kind: "cutover", Agency: "health", ExpectedEpoch: "1.3"}, false},
		"another agency":        {cutover, admin.NewProposal{Kind: "cutover", Agency: "tax"}, false},
		"another kind":          {cutover, admin.NewProposal{Kind: "rollback", Agency: "health"}, false},
		"without a hook":        {lame, admin.NewProposal{Kind: "cutover", Agency: "health"}, false},
		"publish":               {publish, admin.NewProposal{Kind: "publish", Operation: "op-1", Replica: "r1"}, true},
		"publish of another":    {publish, admin.NewProposal{Kind: "publish", Operation: "op-2", Replica: "r1"}, false},
		"publish without other": {publish, admin.NewProposal{Kind: "publish", Operation: "op-1", Replica: "r2"}, false},
		"hook":                  {without, admin.NewProposal{Kind: "without-hook", Operation: "op-1", Hook: "close-ox"}, true},
		"another hook":          {without, admin.NewProposal{Kind: "without-hook", Operation: "op-1", Hook: "open-ox"}, false},
		"spooled mail":          {admin.Proposal{Kind: "drop-spooled"}, admin.NewProposal{Kind: "drop-spooled", Spool: &admin.SpoolAct{}}, false},
	} {
		if got := isFor(&c.proposal, &c.asked); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
