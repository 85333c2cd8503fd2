package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/rollback/rehearse"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

const rehearsalsPath = "/v1/rehearsals"

// NewRehearsal is what a rehearsal came to, to be kept.
type NewRehearsal struct {
	Record rehearse.Record `json:"record"`
	Reason string          `json:"reason" minLength:"1" maxLength:"1000"`
}

// Rehearsal is the last one of an agency.
type Rehearsal struct {
	rehearse.Record
	Current bool `json:"current" doc:"The agency's mapping in force is the one that was rehearsed"`
}

// Rehearsals are the last ones of all agencies that were rehearsed.
type Rehearsals struct {
	Rehearsals []Rehearsal `json:"rehearsals"`
}

type newRehearsal struct {
	Mutation
	Body NewRehearsal
}

func (in *newRehearsal) scope() []routing.AgencyID {
	return []routing.AgencyID{in.Body.Record.Agency}
}

// rehearsedBefore is how long ago a rehearsal may have ended that is stored, and how far its clock may
// differ from the node's.
const (
	rehearsedBefore = time.Hour
	rehearsedAhead  = time.Minute
)

func (s *Server) registerRehearsals(api huma.API) {
	tags := []string{"rehearsals"}
	handle(s, api, huma.Operation{
		OperationID: "list-rehearsals", Method: http.MethodGet, Path: rehearsalsPath, Tags: tags, Summary: "The last rehearsal of each agency",
	}, func(_ context.Context, in *struct {
		Agency string `query:"agency" maxLength:"63"`
	}) (*reply[Rehearsals], error) {
		out := &reply[Rehearsals]{Body: Rehearsals{Rehearsals: []Rehearsal{}}}
		state := s.Replica.State()
		for _, d := range state.Documents(rehearse.Prefix) {
			r, err := rehearse.ParseRecord(d.Text)
			if err != nil {
				return nil, problem(http.StatusConflict, "rehearse the agency again", "%s: %s", d.Key, err)
			}
			if in.Agency != "" && in.Agency != string(r.Agency) {
				continue
			}
			out.Body.Rehearsals = append(out.Body.Rehearsals, rehearsalView(state, r))
		}
		return out, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "store-rehearsal", Method: http.MethodPost, Path: rehearsalsPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Keep what a rehearsal came to", Description: "In the place of the agency's last one. mailcutover rehearse runs it on the machine where it is called, and sends the record.",
	}, func(ctx context.Context, in *newRehearsal) (*reply[Rehearsal], error) {
		r, err := s.storeRehearsal(ctx, &in.Body)
		if err != nil {
			return nil, err
		}
		return &reply[Rehearsal]{Body: rehearsalView(s.Replica.State(), r)}, nil
	})
}

func rehearsalView(state *routing.State, r rehearse.Record) Rehearsal {
	a, ok := state.Agency(r.Agency)
	return Rehearsal{Record: r, Current: ok && a.Mapping == r.Mapping}
}

func (s *Server) storeRehearsal(ctx context.Context, in *NewRehearsal) (rehearse.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	r := in.Record
	reason, err := checkReason(in.Reason)
	if err != nil {
		return r, err
	}
	r.Who, r.Reason = callerOf(ctx).person, reason
	if err := r.Check(); err != nil {
		return r, problem(http.StatusBadRequest, "send what mailcutover rehearse made", "%s", err)
	}
	a, ok := s.Replica.State().Agency(r.Agency)
	if !ok {
		return r, noAgency(string(r.Agency))
	}
	const again = "rehearse the agency again"
	switch now := time.Now(); {
	case a.Mapping != r.Mapping:
		return r, problem(http.StatusConflict, again, "agency %s has the mapping %.12s now, and %.12s was rehearsed", a.ID, a.Mapping, r.Mapping)
	case r.Age(now) > rehearsedBefore || r.Age(now) < -rehearsedAhead:
		return r, problem(http.StatusConflict, again, "the rehearsal ended at %s, and here it is %s: want one of the last hour", r.Ended.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	text, err := r.Text()
	if err != nil {
		return r, err
	}
	result := "it passed"
	if !r.Passed {
		result = "it did not pass"
	}
	entry := audit.Entry{Subject: "agency " + string(r.Agency), Reason: reason, After: fmt.Sprintf("rehearsal %s of %d of %d mailboxes: %s", r.ID, r.Mailboxes, r.Of, result), Digests: []string{r.Mapping.String()}}
	_, err = s.changeAs(ctx, &entry, func(state *routing.State) (table.Change, []*routing.Mapping, error) {
		was, _ := state.Document(rehearse.Key(r.Agency))
		// One that can't be read is nobody's evidence. A later one, as one that failed, is not hidden again.
		if last, err := rehearse.ParseRecord(was.Text); err == nil && last.ID != r.ID && !r.Ended.After(last.Ended) {
			return table.Change{}, nil, problem(http.StatusConflict, again, "a later rehearsal of agency %s is kept, of %s", a.ID, last.Ended.UTC().Format(time.RFC3339))
		} else if err == nil && last.ID == r.ID && last.Passed != r.Passed {
			return table.Change{}, nil, problem(http.StatusConflict, again, "rehearsal %s is kept already, and says another thing", r.ID)
		}
		doc := routing.Document{Key: rehearse.Key(r.Agency), Text: text, Revision: was.Revision}
		return table.Change{Documents: []routing.Document{doc}, What: "rehearsal of agency " + string(r.Agency), Reason: reason}, nil, nil
	})
	return r, err
}

// Rehearsals returns the last rehearsal of an agency, or of each if it is empty.
func (c *Client) Rehearsals(ctx context.Context, agency string) ([]Rehearsal, error) {
	q := url.Values{}
	if agency != "" {
		q.Set("agency", agency)
	}
	out, err := get[Rehearsals](ctx, c, rehearsalsPath, q)
	return out.Rehearsals, err
}

// StoreRehearsal keeps what a rehearsal came to.
func (c *Client) StoreRehearsal(ctx context.Context, r NewRehearsal) (Rehearsal, error) {
	return post[Rehearsal](ctx, c, rehearsalsPath, r)
}
