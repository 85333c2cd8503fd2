package campaign

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// sampleSize is how many messages of a round are traced.
const sampleSize = 25

// Sample asks nodes for the way of some messages that were answered 250.
func Sample(t peers.TB, c *cluster.Cluster, tally *Tally) (all []Traced) {
	t.Helper()
	sent := c.Taken()
	for range min(sampleSize, len(sent)) {
		m := sent[rand.N(len(sent))]
		one := Traced{ID: m.ID, Rcpt: m.Rcpt}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		for _, n := range c.Nodes {
			traces, err := n.API.Trace(ctx, admin.TraceQuery{MessageID: fmt.Sprintf("%d@out.example", m.ID)})
			if err != nil {
				one.Error = err.Error()
				continue
			}
			one.Notes = append(one.Notes, ownNotes(traces.Notes)...)
			for _, way := range traces.Messages {
				for _, e := range way.Events {
					one.Events = append(one.Events, Event{Node: way.Node, What: e.What, Platform: e.Platform, Transaction: way.Transaction, Rcpts: e.Recipients})
				}
			}
		}
		cancel()
		tally.Add("judged", "messages traced", 1)
		all = append(all, one)
	}
	return all
}

// ownNotes leaves out that other nodes were not asked: each is asked by itself.
func ownNotes(notes []string) (own []string) {
	for _, note := range notes {
		if !strings.HasPrefix(note, "node ") {
			own = append(own, note)
		}
	}
	return own
}
