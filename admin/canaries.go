package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"mailcutover/audit"
	"mailcutover/rollback/canary/desk"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// CanaryPerson is the person in whose name the table and the audit log have what a canary leads to by
// itself.
const CanaryPerson = "canary"

// CanaryTried is what one node found last when it tried an agency's canary.
type CanaryTried struct {
	Agency   string    `json:"agency"`
	Node     string    `json:"node"`
	Time     time.Time `json:"time"`
	Platform string    `json:"platform" doc:"That had the agency"`
	OK       bool      `json:"ok"`
	Failures int       `json:"failures,omitempty" doc:"In a row"`
	Text     string    `json:"text"`
	Rollback bool      `json:"rollback,omitempty" doc:"The approved plan of the last cutover lets it be taken back"`
	Reaction string    `json:"reaction,omitempty" enum:"alarm,freeze,rollback" doc:"What follows, or followed"`
	Reacted  bool      `json:"reacted,omitempty" doc:"It is done"`
}

// CanariesTried are those of all nodes and agencies.
type CanariesTried struct {
	Canaries []CanaryTried `json:"canaries"`
}

func (s *Server) registerCanaries(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "list-canaries", Method: http.MethodGet, Path: "/v1/canaries", Tags: []string{"canaries"}, Summary: "What the canaries of all nodes found last",
	}, func(context.Context, *struct{}) (*reply[CanariesTried], error) {
		out := &reply[CanariesTried]{Body: CanariesTried{Canaries: []CanaryTried{}}}
		state := s.Replica.State()
		for _, a := range state.Agencies() {
			r, err := desk.RecordOf(state, a.ID)
			if err != nil {
				return nil, err
			}
			for _, node := range slices.Sorted(maps.Keys(r.Nodes)) {
				t := r.Nodes[node]
				v := CanaryTried{Agency: string(a.ID), Node: string(node), Time: t.Time, Platform: string(t.Platform), OK: t.OK, Failures: t.Failures, Text: t.Text, Rollback: r.Rollback}
				if r.Reaction != nil {
					v.Reaction, v.Reacted = string(r.Reaction.Kind), !r.Reaction.Ended.IsZero()
				}
				out.Body.Canaries = append(out.Body.Canaries, v)
			}
		}
		return out, nil
	})
}

// FreezeForCanary keeps operations of an agency from beginning, in the name of [CanaryPerson]. One that
// is frozen stays so.
func (s *Server) FreezeForCanary(ctx context.Context, id routing.AgencyID, reason string) error {
	ctx = inNameOf(ctx, CanaryPerson, "freeze")
	state := s.Replica.State()
	if _, frozen := state.Frozen(id); frozen {
		return nil
	}
	if err := s.record(ctx, audit.Entry{Subject: "agency " + string(id), Reason: reason, Before: frozenText(state, id), After: "frozen"}); err != nil {
		return err
	}
	err := s.Control.Freeze(ctx, s.act(ctx, "freeze/"+uuid.NewString(), reason), id)
	if err != nil && !errors.Is(err, control.ErrNothing) {
		s.recordFailure(ctx, err)
		return err
	}
	return nil
}

// RollBackForCanary begins to bring an agency back to its source, as an emergency in the name of
// [CanaryPerson]: a person has to confirm it. One that isn't on its target, or has an
// emergency already, is left alone.
func (s *Server) RollBackForCanary(ctx context.Context, id routing.AgencyID, reason string) error {
	ctx = inNameOf(ctx, CanaryPerson, "rollback")
	a, ok := s.Replica.State().Agency(id)
	switch {
	case !ok || a.Phase != routing.PhaseTarget || a.Unconfirmed != "":
		return nil
	case a.Finalised:
		return fmt.Errorf("roll back agency %s: %w", id, routing.ErrFinalised)
	}
	_, _, err := s.begin(ctx, operation.Request{Kind: operation.Rollback, Agency: id, Reason: reason, Expected: a.Epoch, Emergency: true}, "")
	if err != nil {
		s.recordFailure(ctx, err)
	}
	return err
}

// Canaries returns what the canaries of all nodes found last.
func (c *Client) Canaries(ctx context.Context) ([]CanaryTried, error) {
	out, err := get[CanariesTried](ctx, c, "/v1/canaries", nil)
	return out.Canaries, err
}
