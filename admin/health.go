package admin

import (
	"net/http"
	"time"
)

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready     bool            `json:"ready"`
	Reason    string          `json:"reason,omitempty"` // why not
	Approval  string          `json:"approval"`
	Lab       bool            `json:"lab"`
	Table     ReadinessTable  `json:"table"`
	Platforms map[string]bool `json:"platforms"`                   // whether each is ready
	Closed    []string        `json:"closed_unattended,omitempty"` // agencies that an operation left closed; see the alarms
	Degraded  bool            `json:"degraded"`                    // ready, but not all of it

	Spool      []string `json:"spool,omitempty"`      // what is wrong with spool and ledger
	Postmaster string   `json:"postmaster,omitempty"` // why mail to <postmaster> is put off
}

// ReadinessTable is how this node stands to the table.
type ReadinessTable struct {
	Decides  bool    `json:"decides"` // for settled agencies
	Revision uint64  `json:"revision"`
	Age      float64 `json:"age_seconds"` // since it was last reached; -1: never
}

// readiness says whether this node should get mail: it may decide, and at least one
// platform can be reached. A single platform that is down doesn't count: its mail gets
// temporary answers from every node, and that of the others must go on.
func (s *Server) readiness() Readiness {
	t := s.tableView()
	r := Readiness{
		Ready: true, Approval: s.Approval, Lab: s.Lab, Platforms: map[string]bool{},
		Table:      ReadinessTable{Decides: t.Decides, Revision: t.Revision, Age: t.Age},
		Postmaster: t.Postmaster, Spool: s.Troubles(),
	}
	up := 0
	platforms := s.Platforms()
	for _, p := range platforms {
		r.Platforms[p.ID] = p.Ready
		if p.Ready {
			up++
		}
	}
	r.Closed = texts(s.Runner.Unattended())
	r.Degraded = up < len(platforms) || len(t.Missing)+len(t.Regressed)+len(t.Conflicts)+len(r.Closed)+len(r.Spool) > 0
	if err := s.Gate.Ready(); err != nil {
		r.Ready, r.Reason = false, err.Error()
	} else if up == 0 {
		r.Ready, r.Reason = false, "no platform can be reached"
	}
	return r
}

// registerHealth registers what needs no token.
func (s *Server) registerHealth() {
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = writeJSON(w, map[string]any{"alive": true, "seconds": int(time.Since(s.began).Seconds())})
	})
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := s.readiness()
		w.Header().Set("Content-Type", "application/json")
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = writeJSON(w, r)
	})
	s.mux.Handle("GET /metrics", s.Metrics)
}
