package campaign

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"mailcutover/audit"
	"mailcutover/internal/durable"
	"mailcutover/test/cluster"
)

// readAudits reads the audit logs of nodes that have stopped, and proves each of them whole.
func readAudits(c *cluster.Cluster) (all []audit.Record, err error) {
	for _, n := range c.Nodes {
		if _, err := audit.VerifyDir(durable.OS{}, filepath.Join(n.Data(), "audit"), func(r *audit.Record, _ []byte) error {
			all = append(all, *r)
			return nil
		}); err != nil {
			return nil, fmt.Errorf("the audit log of %s: %w", n.Name, err)
		}
	}
	return all, nil
}

// checkAudit wants each switch that was done to stand in an audit log before it was told as done,
// under a proposal that another person had approved, or as an emergency that another person has
// confirmed (P9).
func checkAudit(switches []cluster.Switch, all []audit.Record) (bad []string) {
	approved := make(map[string][]*audit.Record) // by proposal
	var confirmed []*audit.Record
	for i := range all {
		switch r := &all[i]; {
		case r.Error != "":
		case r.What == "approve-proposal":
			approved[r.Proposal] = append(approved[r.Proposal], r)
		case r.What == "confirm-emergency":
			confirmed = append(confirmed, r)
		}
	}
	for _, s := range switches {
		if !s.Done {
			continue
		}
		found, agreed := false, false
		for i := range all {
			r := &all[i]
			if r.What != s.Kind || r.Subject != "agency "+s.Agency || r.Time.Before(s.Asked.Add(-time.Second)) || r.Time.After(s.Told) {
				continue
			}
			found = true
			if r.Emergency {
				for _, c := range confirmed {
					agreed = agreed || c.Person != r.Person && strings.HasSuffix(c.Subject, "of agency "+s.Agency)
				}
			}
			for _, a := range approved[r.Proposal] {
				agreed = agreed || r.Proposal != "" && a.Person != r.Person && !a.Time.After(r.Time)
			}
		}
		switch {
		case !found:
			bad = append(bad, fmt.Sprintf("P9: %s of %s, asked for at %s and told at %s, stands in no audit log", s.Kind, s.Agency, s.Asked.Format(clock), s.Told.Format(clock)))
		case !agreed:
			bad = append(bad, fmt.Sprintf("P9: %s of %s, asked for at %s, was done without another person's word", s.Kind, s.Agency, s.Asked.Format(clock)))
		}
	}
	return bad
}
